// The convolution engine without torch, for sanitizers: every algorithm that runs here on sizes that are
// multiples of nothing, by one thread and by three, every operand between forbidden pages, against plain
// loops (plain_conv.h).
#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <string>

#include "common/element.h"
#include "cpu/conv/block.h"
#include "cpu/conv/memory.h"
#include "cpu/conv/packed.h"
#include "cpu/conv/support.h"
#include "cpu/conv/wgrad.h"
#include "cpu/conv/wgrad_bf16.h"
#include "guarded.h"
#include "plain_conv.h"

namespace fusedres::conv {

// In place of memory.cpp's, whose rounding up would hide what is written beyond the end.
char* scratch_memory(int64_t bytes, Scratch use) {
  thread_local std::optional<Guarded> buffers[3];
  std::optional<Guarded>& buffer = buffers[static_cast<int>(use)];
  buffer.emplace(bytes, Guarded::At::kEnd, 0xff, 64);
  return buffer->data();
}

namespace {

constexpr int kPoison = 0xff;  // NaN in fp32 and bf16

// ThreadSanitizer, under which a load takes ten times as long, is there for races: one thread has none, and
// none depends on where operands end.
#if defined(__SANITIZE_THREAD__)
constexpr bool kRacesAlone = true;
#else
constexpr bool kRacesAlone = false;
#endif

struct Case {
  const char* name;
  int64_t images, height, width;
  Filter filter;
};

// K, C, R, S, strides, paddings, dilations, groups
const Case kCases[] = {
    {"odd channels", 2, 9, 11, {33, 5, 3, 3, 1, 1, 1, 1}},
    {"wide filter", 1, 8, 13, {70, 6, 5, 4, 3, 2, 2, 1}},
    {"stem", 1, 17, 19, {40, 3, 7, 7, 2, 2, 3, 3}},
    {"pointwise", 3, 7, 5, {34, 130, 1, 1}},
    {"strided pointwise", 2, 9, 9, {31, 40, 1, 1, 2, 2}},
    {"colliding rows", 1, 4, 5, {32, 1024, 1, 1}},
    {"one pixel", 2, 1, 1, {7, 9, 3, 3, 1, 1, 1, 1}},
    {"one value", 1, 1, 1, {1, 1, 1, 1}},
    {"dilated", 1, 13, 12, {34, 18, 3, 3, 1, 1, 2, 2, 2, 2}},
    {"dilated, no border", 1, 12, 11, {5, 3, 3, 2, 1, 2, 0, 0, 3, 2}},
    {"quads of 4", 2, 7, 9, {64, 64, 3, 3, 1, 1, 1, 1, 1, 1, 16}},
    {"quads of 8", 1, 9, 7, {32, 32, 3, 3, 2, 2, 1, 1, 1, 1, 4}},
    {"quads of 16", 1, 6, 5, {64, 64, 3, 3, 1, 1, 0, 0, 1, 1, 4}},
    {"odd groups", 1, 6, 7, {45, 30, 3, 3, 1, 1, 1, 1, 1, 1, 15}},
    {"wide groups", 1, 5, 6, {150, 144, 3, 3, 1, 1, 1, 1, 1, 1, 3}},
    {"depthwise", 1, 7, 6, {37, 37, 3, 3, 2, 2, 1, 1, 1, 1, 37}},
    {"many patches", 3, 15, 14, {65, 34, 3, 3, 1, 1, 1, 1}},
    {"many panels", 1, 5, 7, {130, 64, 3, 3, 1, 1, 1, 1}},
    {"packed inputs", 2, 5, 7, {259, 37, 1, 1}},
    {"packed, strided", 1, 7, 9, {226, 22, 1, 1, 2, 2}},
    {"panels of other groups", 1, 5, 6, {256, 64, 1, 1, 1, 1, 0, 0, 1, 1, 2}},
    {"packed patches", 1, 9, 7, {257, 21, 3, 3, 1, 1, 1, 1}},
    {"several blocks of patches", 5, 29, 27, {70, 130, 3, 3, 1, 1, 1, 1}},
    // Winograd point by point in several blocks, of F(2x2) and of F(4x4), by one thread and by three.
    {"many weights, many patches", 39, 5, 6, {70, 1078, 3, 3, 1, 1, 1, 1}},
    // Point by point where three threads share out the panels; direct: split panels whose shares exceed L2.
    {"many weights, few patches", 5, 5, 7, {454, 741, 3, 3, 1, 1, 1, 1}},
    // Panels not shared out for F(4x4), whose V would be too large, though the weights are larger.
    {"more weights than V", 14, 5, 6, {70, 1078, 3, 3, 1, 1, 1, 1}},
};

bool suits(const Filter& f, Algorithm algorithm) {
  const bool plain = f.rows == 3 && f.cols == 3 && f.stride_h == 1 && f.stride_w == 1 && f.dilation_h == 1 &&
                     f.dilation_w == 1 && f.groups == 1;
  if (winograd_outputs(algorithm) > 0) return plain;
  return parts_of(algorithm) == 0 || f.groups == 1;
}

double value(const char* data, int64_t at, DataType type) {
  return type == DataType::kFloat32 ? reinterpret_cast<const float*>(data)[at]
                                    : to_float(reinterpret_cast<const BFloat16*>(data)[at]);
}

// The values of a convolution's operands, as random as their type lets them be.
struct Values {
  Values(const Case& c, DataType type, std::mt19937& random)
      : x(drawn(c.images * c.height * c.width * c.filter.in_channels, type, random)),
        w(drawn(
            c.filter.out_channels * c.filter.group_inputs() * c.filter.rows * c.filter.cols, type, random)),
        residual(drawn(
            c.images * c.filter.out_height(c.height) * c.filter.out_width(c.width) * c.filter.out_channels,
            type, random)),
        scale(drawn(c.filter.out_channels, DataType::kFloat32, random)),
        shift(drawn(c.filter.out_channels, DataType::kFloat32, random)) {}

  static std::vector<float> drawn(int64_t count, DataType type, std::mt19937& random) {
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> values(count);
    for (float& value : values) {
      value = uniform(random);
      if (type == DataType::kBFloat16) value = rounded_to<BFloat16>(value);
    }
    return values;
  }

  std::vector<float> x, w, residual, scale, shift;
};

void write(const std::vector<float>& values, char* to, DataType type) {
  for (const float value : values) {
    if (type == DataType::kFloat32) {
      std::memcpy(to, &value, sizeof(value));
    } else {
      const BFloat16 rounded = from_float<BFloat16>(value);
      std::memcpy(to, &rounded, sizeof(rounded));
    }
    to += element_size(type);
  }
}

// Operands of one convolution; what follows the last value, or precedes the first, is a forbidden page.
struct Operands {
  Operands(const Case& c, const Values& values, Algorithm algorithm, Guarded::At at)
      : type(data_type(algorithm)),
        filter(c.filter),
        p(filter.out_height(c.height)),
        q(filter.out_width(c.width)),
        w_count(values.w.size()),
        y_count(values.residual.size()),
        header(make_header(algorithm, filter)),
        x(values.x.size() * size(), at, kPoison),
        w(w_count * size(), at, kPoison),
        residual(y_count * size(), at, kPoison),
        packed(header.bytes, at, kPoison, 64),
        scale(4 * round_up(filter.out_channels, kPanel), at, 0),
        shift(4 * round_up(filter.out_channels, kPanel), at, 0) {
    write(values.x, x.data(), type);
    write(values.w, w.data(), type);
    write(values.residual, residual.data(), type);
    write(values.scale, scale.data(), DataType::kFloat32);
    write(values.shift, shift.data(), DataType::kFloat32);
    const int64_t taps = filter.rows * filter.cols;
    const int64_t strides[4] = {filter.group_inputs() * taps, taps, filter.cols, 1};
    write_header(header, packed.data());
    for (int64_t panel = 0; panel < filter.panels(); ++panel)
      pack_panel(header, w.data(), strides, panel, packed.data());
    in = dense_map(x.data(), c.images, c.height, c.width, filter.in_channels, size());
    add = dense_map(residual.data(), c.images, p, q, filter.out_channels, size());
  }
  Operands(const Case& c, Algorithm algorithm, Guarded::At at, std::mt19937& random)
      : Operands(c, Values(c, data_type(algorithm), random), algorithm, at) {}

  int64_t size() const { return element_size(type); }

  DataType type;
  Filter filter;
  int64_t p, q, w_count, y_count;
  PackedHeader header;
  Guarded x, w, residual, packed, scale, shift;
  Map in, add;
};

// A case with its sums, which every algorithm of its type is compared with.
struct SummedCase {
  SummedCase(const Case& c, DataType type, std::mt19937& random)
      : c(c), values(c, type, random), sums(values.residual.size()) {
    plain_conv(c.filter, c.images, c.height, c.width, values.x.data(), values.w.data(), sums.data());
  }

  double expected(int64_t at, bool joins) const {
    const int64_t k = at % c.filter.out_channels;
    const double y = sums[at] * values.scale[k] + values.shift[k] + (joins ? values.residual[at] : 0);
    return y > 0 ? y : 0;
  }

  const Case& c;
  Values values;
  std::vector<double> sums;
};

int failures = 0;

// Of a sum of n products below 1: fp32 rounds by n * 2^-24, of 1300 1e-4, bf16 by 2^-9 of the result. Two
// parts leave out 4.4e-6 of each product, rms, and 1.7 times that in Winograd's: of 1300 products of rms 1/3,
// 9e-5. Of fewer products the same is allowed: F(4x4) sums over a patch.
void compare(
    const SummedCase& summed, const Operands& o, const char* out, bool joins, const std::string& what) {
  const bool two_parts = parts_of(static_cast<Algorithm>(o.header.algorithm)) == 2;
  const double products = o.filter.group_inputs() * o.filter.rows * o.filter.cols;
  const double sums = std::max(1.0, products / 1300) * (two_parts ? 1e-3 : 1e-4);
  const double relative = o.type == DataType::kBFloat16 ? 1e-2 : sums;
  for (int64_t i = 0; i < o.y_count; ++i) {
    const double expected = summed.expected(i, joins), got = value(out, i, o.type);
    if (std::abs(got - expected) <= relative * (1 + std::abs(expected))) continue;
    std::printf("%s: value %ld is %g, not %g\n", what.c_str(), static_cast<long>(i), got, expected);
    ++failures;
    return;
  }
}

void check_conv(const SummedCase& summed, const Operands& o, int64_t threads, Guarded::At at) {
  const Epilogue epilogue{o.scale.as<float>(), o.shift.as<float>(), true};
  for (const bool joins : {false, true}) {
    const Guarded out(o.y_count * o.size(), at, kPoison);
    ThreadTeam team(threads);
    run_conv(
        o.packed.data(), epilogue, o.in, joins ? o.add : Map{},
        dense_map(out.data(), o.in.images, o.p, o.q, o.filter.out_channels, o.size()), team);
    compare(
        summed, o, out.data(), joins,
        std::string(summed.c.name) + ", algorithm " + std::to_string(o.header.algorithm) + ", " +
            std::to_string(threads) + " threads");
  }
}

// A block is its convolutions one after the other, bit for bit.
void check_block(Algorithm algorithm, int64_t images, int64_t threads, std::mt19937& random) {
  const int64_t groups = parts_of(algorithm) > 0 ? 1 : 16;
  const Case cases[4] = {
      {"reduce", images, 9, 11, {64, 48, 1, 1}},
      {"middle", images, 9, 11, {64, 64, 3, 3, 2, 2, 1, 1, 1, 1, groups}},
      {"expand", images, 5, 6, {70, 64, 1, 1}},
      {"skip", images, 9, 11, {70, 48, 1, 1, 2, 2}}};
  const auto at = Guarded::At::kEnd;
  std::vector<Operands> o;
  for (const Case& c : cases) o.emplace_back(c, algorithm, at, random);
  Block block;
  for (int i = 0; i < 4; ++i)
    (i < 3 ? block.convs[i] : block.downsample) = {
        o[i].packed.data(), o[i].scale.as<float>(), o[i].shift.as<float>()};
  const auto map_of = [&](const Guarded& data, const Operands& like) {
    return dense_map(data.data(), images, like.p, like.q, like.filter.out_channels, like.size());
  };
  const Guarded whole(o[2].y_count * o[2].size(), at, kPoison);
  ThreadTeam team(threads), one(1);
  run_block(block, o[0].in, map_of(whole, o[2]), team);

  std::vector<Guarded> steps;
  for (const Operands& conv : o) steps.emplace_back(conv.y_count * conv.size(), at, kPoison);
  const auto run = [&](int i, const Map& in, const Map& add) {
    run_conv(
        o[i].packed.data(), {o[i].scale.as<float>(), o[i].shift.as<float>(), i < 3}, in, add,
        map_of(steps[i], o[i]), one);
  };
  run(3, o[0].in, {});
  run(0, o[0].in, {});
  run(1, map_of(steps[0], o[0]), {});
  run(2, map_of(steps[1], o[1]), map_of(steps[3], o[3]));
  if (std::memcmp(whole.data(), steps[2].data(), o[2].y_count * o[2].size()) == 0) return;
  std::printf(
      "block, algorithm %d, %ld threads: not its convolutions\n", static_cast<int>(algorithm),
      static_cast<long>(threads));
  ++failures;
}

// Parts of a batch are of two sizes, and Winograd's scratch does not grow evenly with the images.
void check_uneven_parts(Algorithm algorithm, int64_t images, int64_t threads, std::mt19937& random) {
  const Case c{"basic", images, 8, 8, {128, 128, 3, 3, 1, 1, 1, 1}};
  const auto at = Guarded::At::kEnd;
  const Operands first(c, algorithm, at, random), second(c, algorithm, at, random);
  const auto conv = [](const Operands& o) {
    return BlockConv{o.packed.data(), o.scale.as<float>(), o.shift.as<float>()};
  };
  const int64_t bytes = first.y_count * first.size();
  const Guarded whole(bytes, at, kPoison), apart(bytes, at, kPoison);
  const auto map_of = [&](const Guarded& data) {
    return dense_map(data.data(), images, 8, 8, 128, first.size());
  };
  const Block block{{conv(first), conv(second), {}}, {}};
  ThreadTeam team(threads), alone(1);
  run_block(block, first.in, map_of(whole), team);
  for (int64_t n = 0; n < images; ++n)
    run_block(block, first.in.from_image(n, 1), map_of(apart).from_image(n, 1), alone);
  if (std::memcmp(whole.data(), apart.data(), bytes) == 0) return;
  std::printf(
      "%ld images, algorithm %d, %ld threads: not each image by itself\n", static_cast<long>(images),
      static_cast<int>(algorithm), static_cast<long>(threads));
  ++failures;
}

bool are_values_of_bf16(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return (bits & 0xffff) == 0;
  });
}

// Blocks of one call, in one region or with images carried through, are the same blocks one after the other,
// bit for bit; where `rounds`, and the tiles can, each rounds its output.
void check_blocks(Algorithm algorithm, int64_t images, int64_t threads, bool rounds, std::mt19937& random) {
  const Case cases[8] = {{"reduce", images, 9, 11, {64, 48, 1, 1}},
                         {"middle", images, 9, 11, {64, 64, 3, 3, 2, 2, 1, 1}},
                         {"expand", images, 5, 6, {70, 64, 1, 1}},
                         {"skip", images, 9, 11, {70, 48, 1, 1, 2, 2}},
                         {"reduce again", images, 5, 6, {230, 70, 1, 1}},
                         {"middle again", images, 5, 6, {20, 230, 3, 3, 1, 1, 1, 1}},
                         {"expand again", images, 5, 6, {70, 20, 1, 1}},
                         {"skip again", images, 5, 6, {70, 70, 1, 1}}};
  const auto at = Guarded::At::kEnd;
  std::vector<Operands> o;
  for (const Case& c : cases) o.emplace_back(c, algorithm, at, random);
  const auto conv = [&](int i) {
    return BlockConv{o[i].packed.data(), o[i].scale.as<float>(), o[i].shift.as<float>()};
  };
  if (rounds && !tiles_of(o[0].header).can_round) return;
  const Block first{{conv(0), conv(1), conv(2)}, conv(3), rounds};
  const Block second{{conv(4), conv(5), conv(6)}, {}, rounds};
  const Block third{{conv(4), conv(5), conv(6)}, conv(7), rounds};
  const std::vector<Block> blocks = {first, second, third, second};
  const Operands& like = o[2];
  const auto map_of = [&](char* data) { return dense_map(data, images, 5, 6, 70, like.size()); };
  const int64_t bytes = like.y_count * like.size();
  const Guarded whole(bytes, at, kPoison);
  std::vector<Map> maps(blocks.size(), map_of(nullptr));
  maps.back() = map_of(whole.data());
  ThreadTeam team(threads), alone(1);
  run_blocks(blocks, o[0].in, maps, team);
  std::vector<Guarded> outs;
  for (size_t i = 0; i < blocks.size(); ++i) {
    outs.emplace_back(bytes, at, kPoison);
    run_block(blocks[i], i == 0 ? o[0].in : map_of(outs[i - 1].data()), map_of(outs[i].data()), alone);
  }
  const auto expect = [&](bool holds, const char* otherwise) {
    if (holds) return;
    std::printf(
        "blocks, algorithm %d, %ld images, %ld threads, rounds %d: %s\n", static_cast<int>(algorithm),
        static_cast<long>(images), static_cast<long>(threads), rounds, otherwise);
    ++failures;
  };
  expect(std::memcmp(whole.data(), outs.back().data(), bytes) == 0, "not one after the other");
  if (!rounds) return;
  for (const Guarded& out : outs) expect(are_values_of_bf16(out.as<float>(), like.y_count), "not rounded");
}

template <class Task>
void run_parts(const Task& task, int64_t parts) {
  const Guarded scratch(task.scratch_bytes(parts), Guarded::At::kEnd, kPoison, 64);
  std::vector<std::thread> threads;
  for (int64_t part = 0; part < parts; ++part)
    threads.emplace_back([&, part] { task.run(part, parts, scratch.data()); });
  for (std::thread& thread : threads) thread.join();
}

// dw by one thread and by three: the same bits.
void check_wgrad(const char* name, const Operands& o, Guarded::At at) {
  const auto algorithm = static_cast<Algorithm>(o.header.algorithm);
  const bool channels_last = at == Guarded::At::kEnd;
  const auto run = [&](int64_t parts) {
    Guarded dw(o.w_count * o.size(), at, kPoison);
    if (o.type == DataType::kFloat32) {
      const bool winograd = algorithm == Algorithm::kWinogradF32;
      const WeightGradient<float> out(dw.as<float>(), o.filter, channels_last);
      run_parts(Wgrad(wgrad_kernels(), winograd, o.filter, o.in, {}, o.add, out), parts);
    } else {
      const WeightGradient<BFloat16> out(dw.as<BFloat16>(), o.filter, channels_last);
      run_parts(WgradBf16(kWgradBf16Amx, o.filter, o.in, {}, o.add, out), parts);
    }
    return dw;
  };
  const Guarded one = run(1), three = run(3);
  if (std::memcmp(one.data(), three.data(), o.w_count * o.size()) == 0) return;
  std::printf("wgrad of %s, algorithm %d: threads disagree\n", name, static_cast<int>(algorithm));
  ++failures;
}

void check(Algorithm algorithm, const std::vector<SummedCase>& cases) {
  for (const Guarded::At at : {Guarded::At::kEnd, Guarded::At::kBegin}) {
    if (kRacesAlone && at == Guarded::At::kBegin) continue;
    for (const SummedCase& summed : cases) {
      const Case& c = summed.c;
      if (!suits(c.filter, algorithm)) continue;
      const Operands o(c, summed.values, algorithm, at);
      for (const int64_t threads : {1, 3})
        if (threads > 1 || !kRacesAlone) check_conv(summed, o, threads, at);
      if (can_run_wgrad(algorithm) && c.filter.groups == 1 && c.filter.dilation_h == 1)
        check_wgrad(c.name, o, at);
    }
  }
  std::mt19937 random(0);
  for (const int64_t images : {7, 28, 31})
    for (const int64_t threads : {1, 2})
      if (threads > 1 || !kRacesAlone) check_uneven_parts(algorithm, images, threads, random);
  if (winograd_outputs(algorithm) > 0) return;
  for (const int64_t images : {1, 5})
    for (const int64_t threads : {1, 3}) check_block(algorithm, images, threads, random);
  for (const int64_t images : {1, 7})
    for (const int64_t threads : {2, 3})
      for (const bool rounds : {false, true}) check_blocks(algorithm, images, threads, rounds, random);
}

}  // namespace
}  // namespace fusedres::conv

int main() {
  using namespace fusedres::conv;
  for (const DataType type : {DataType::kFloat32, DataType::kBFloat16}) {
    std::mt19937 random(0);
    std::vector<SummedCase> cases;
    for (const Case& c : kCases) cases.emplace_back(c, type, random);
    for (int32_t number = 0; number < kAlgorithms; ++number) {
      const auto algorithm = static_cast<Algorithm>(number);
      if (data_type(algorithm) != type || !can_run(algorithm)) continue;
      check(algorithm, cases);
      std::printf("algorithm %d done\n", number);
    }
  }
  return failures == 0 ? 0 : 1;
}
