// The state of the backups for the textfile collector of node_exporter.
#pragma once

#include <string>
#include <vector>

#include "lib/backup/repository.h"
#include "lib/config/config.h"

namespace zx::backup {

// In Prometheus's text format. Moments are timestamps: the file is read long after it was written.
// Pure. What has not happened is 0 (timestamps) or absent (durations).
[[nodiscard]] std::string metrics_text(const std::vector<Entry>& entries,
                                       const config::Backup& policy, Wall now);

// Writes backup.metrics_file, mode 0644, whole or not at all. Nothing when none is configured.
[[nodiscard]] Status write_metrics(const Repository& repository, const config::Backup& policy,
                                   Wall now);

// Of the sets that count, newest first: good and not of the future.
[[nodiscard]] std::vector<const Entry*> good_sets(const std::vector<Entry>& entries, Wall now);
// Bytes of all their objects, each once.
[[nodiscard]] std::uint64_t stored_bytes(const std::vector<Entry>& entries);

}  // namespace zx::backup
