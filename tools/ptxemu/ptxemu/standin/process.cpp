// Run helper programs (the translator, zstd) without the stand-in in their way.
#include "standin.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int scratch_file(std::string &name) {
  const char *folder = getenv("TMPDIR");
  name = std::string(folder ? folder : P_tmpdir) + "/ptxemuXXXXXX";
  return mkstemp(name.data());
}

// this process's environment without LD_PRELOAD, and with the settings (NAME=value) added
static std::vector<std::string> child_environment(const std::vector<std::string> &settings) {
  std::vector<std::string> result = settings;
  for (char **entry = environ; *entry; entry++) {
    std::string text = *entry, name = text.substr(0, text.find('=') + 1);
    bool replaced = name == "LD_PRELOAD=";
    for (auto &setting : settings) replaced |= setting.compare(0, name.size(), name) == 0;
    if (!replaced) result.push_back(text);
  }
  return result;
}

static std::vector<char *> pointers(std::vector<std::string> &words) {
  std::vector<char *> result;
  for (auto &word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

bool run_program(std::vector<std::string> words, const std::vector<std::string> &settings, bool with_stderr,
                 std::string &output) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC)) return false;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  if (with_stderr) posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  std::vector<std::string> environment = child_environment(settings);
  pid_t child;
  int failed = posix_spawnp(&child, words[0].c_str(), &actions, nullptr, pointers(words).data(),
                            pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  char buffer[65536];
  for (ssize_t n; !failed && (n = read(ends[0], buffer, sizeof buffer)) > 0;) output.append(buffer, n);
  close(ends[0]);
  if (failed) {
    output = words[0] + " cannot be run";
    return false;
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
