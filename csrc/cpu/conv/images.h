// A batch that several layers take in turn, image by image.
#pragma once

#include <cstdint>
#include <functional>

#include "cpu/conv/shape.h"
#include "cpu/conv/team.h"

namespace fusedres::conv {

// Whole images to each thread, which takes up to `most` of them at once and meets no barrier on their way;
// those left over are done by the team together.
//
// bytes_of(images, threads): scratch memory for so many images at once, done by so many threads.
// run(images, memory, team): do them; called by several threads at once, each with a team and memory of its
// own.
void share_images(
    int64_t images, int64_t most, Team& team,
    const std::function<int64_t(int64_t images, int64_t threads)>& bytes_of,
    const std::function<void(Range images, char* memory, Team& team)>& run);

}  // namespace fusedres::conv
