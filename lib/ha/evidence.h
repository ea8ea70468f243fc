// One thing that somebody saw, behind a verdict.
#pragma once

#include <string>

namespace zx::ha {

struct Evidence {
  std::string observer;  // who saw it
  std::string node;      // about whom; empty: about the deployment, as the Sentinels see it
  std::string text;
};

}  // namespace zx::ha
