// The directory of backups, as zx-repository(7) describes it.
//
//   zx-repository.json    what this is, and its format
//   lock                  locked while somebody reads, writes or deletes
//   sets/ID/              a set: manifest.json, SHA256SUMS, trust.json, pg/, redis/, files/
//   archives/             tar archives of files, which later sets refer to as well
//   incoming/ID/          of a run that is at work or was killed
//   trash/                what a prune is about to delete
//
// A set is there when its directory is in sets/: it is made in incoming/, synced, and renamed.
// Names in a repository may come from an enemy: nothing is followed that is a symbolic link.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/backup/repository_lock.h"
#include "lib/backup/set.h"
#include "lib/os/files.h"

namespace zx::backup {

struct Entry {
  std::string id;
  Result<Set> set = fail(Code::internal, "not read");  // an Error: its manifest cannot be read
  std::vector<Check> checks;
  std::string trust_problem;  // why trust.json says nothing, or not all
  enum class TrustFile {
    known,       // or there is none yet
    unreadable,  // it could not be looked at, this time
    newer,       // a newer zx wrote in it what this one does not know
    broken,      // nobody knows what it says, or said
  };
  TrustFile trust_file = TrustFile::known;
};

class Repository {
 public:
  // Code::not_found when there is none (the hint says what makes one), refused when the directory
  // holds something else or a newer format, auth; io when it cannot be said what is there.
  [[nodiscard]] static Result<Repository> open(const std::string& path);
  // Makes it where nothing is, mode 0700.
  [[nodiscard]] static Result<Repository> open_or_make(const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& id() const { return id_; }  // no other repository has it
  [[nodiscard]] std::string set_path(const std::string& id) const { return path_ + "/sets/" + id; }
  [[nodiscard]] std::string archives_path() const { return path_ + "/archives"; }
  [[nodiscard]] std::string incoming_path(const std::string& id) const {
    return path_ + "/incoming/" + id;
  }
  [[nodiscard]] std::string trash_path() const { return path_ + "/trash"; }

  // For a run that adds or deletes. Code::locked, naming the holder.
  [[nodiscard]] Result<RepositoryLock> lock_to_write(const std::string& command) const;
  // While sets are read that must not be deleted meanwhile. Several may have it, and a backup may
  // run beside it; a prune may not. Nothing where there is no file to lock and none can be made.
  [[nodiscard]] Result<std::optional<RepositoryLock>> lock_to_read() const;
  // For a deletion: nobody reads. Beside lock_to_write().
  [[nodiscard]] Result<RepositoryLock> lock_to_delete() const;

  // Newest first, by the time that the manifests tell.
  [[nodiscard]] Result<std::vector<Entry>> sets() const;
  // Code::not_found with the nearest id.
  [[nodiscard]] Result<Entry> set(const std::string& id) const;
  // Opens an object for reading, no link followed. Code::failed when it is not there, is no regular
  // file or has another size.
  [[nodiscard]] Result<os::Descriptor> open_object(const Object& object) const;

  // incoming/ID with its folders, for a set that is about to be made; false: the id is taken.
  [[nodiscard]] Result<bool> begin(const std::string& id) const;
  // Writes the manifest, syncs every file and directory of incoming/ID, and renames it into sets/.
  // From then on the set is there: what goes wrong after it is a warning; empty: nothing did.
  [[nodiscard]] Result<std::string> publish(const Set& set) const;
  // May there be such a set? Also when it cannot be looked at.
  [[nodiscard]] bool may_have(const std::string& id) const;
  // Removes what killed runs left: incoming/, trash/, archives that no set refers to. With the lock
  // to write, which is asked whether it is still held. Archives stay when it is not known what some
  // set needs: its manifest cannot be read, or the set not be looked at. One name that cannot be
  // removed is a warning; Code::disk_full or auth where nothing can.
  struct Swept {
    int runs = 0;
    int archives = 0;
    std::string archives_stay;  // why no archive was deleted; empty: those that nobody needs were
    std::vector<std::string> warnings;
  };
  [[nodiscard]] Result<Swept> sweep(const RepositoryLock& writing) const;
  // "sets", "trash" and the like, open: whatever has its name a moment later. No link is followed,
  // as somebody may have put it there.
  [[nodiscard]] Result<os::Descriptor> open_folder(const std::string& name) const;
  // incoming/ID and its archives, of a set that will not be; as far as it can.
  void discard(const std::string& id) const;

  // Beside the others of the set, whole or not at all. Waits a little for others who do that.
  // Code::refused, and nothing is written, where what others found would be lost: of a set of a
  // newer format, beside checks of a newer zx; io while trust.json cannot be read. One that is
  // broken is kept aside, which is the warning that it returns; empty: nothing to say.
  [[nodiscard]] Result<std::string> remember(const std::string& id, const Check& check) const;

  // Bytes that this user may still write.
  [[nodiscard]] Result<std::uint64_t> free_space() const;
  [[nodiscard]] bool is_writable() const;

 private:
  Repository(std::string path, std::string id, std::optional<os::Owner> heir)
      : path_(std::move(path)), id_(std::move(id)), heir_(heir) {}
  [[nodiscard]] Result<RepositoryLock> lock(RepositoryLock::Byte byte, bool is_shared = false,
                                            const std::string& about = {}) const;
  void read_trust(Entry& entry) const;
  [[nodiscard]] Status give_away(const std::string& path) const;
  [[nodiscard]] Status sweep_checks(const std::vector<std::string>& ids, Swept& swept) const;
  [[nodiscard]] Status sweep_archives(const std::vector<std::string>& ids, Swept& swept) const;
  std::string path_, id_;
  std::optional<os::Owner> heir_;  // of what is made; nothing: whoever makes it
};

}  // namespace zx::backup
