// A new file that is there whole or not at all, written in pieces.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/os/files.h"

namespace zx::os {

class NewFile {
 public:
  // Begins it beside `path`, under a name of its own, mode 0600. Code::refused when `path` exists.
  // What others began in the same directory and left when they were killed is removed.
  [[nodiscard]] static Result<NewFile> create(const std::string& path);
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  // Removes it, unless it was published.
  ~NewFile();

  // Code::disk_full, io.
  [[nodiscard]] Status write(std::string_view bytes);
  // Under the name asked for, durably. Code::refused when something has that name by now.
  [[nodiscard]] Status publish();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& part() const { return part_; }  // its name until then
  [[nodiscard]] int get() const { return file_.get(); }            // open for reading too

 private:
  NewFile(std::string path, std::string part, Descriptor file)
      : path_(std::move(path)), part_(std::move(part)), file_(std::move(file)) {}
  std::string path_, part_;
  Descriptor file_;
};

}  // namespace zx::os
