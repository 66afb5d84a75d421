//! Where the kernel counts what a container uses, control groups of version 1 and 2 alike, and how its
//! files are read. Pure: text in, paths and numbers out.

use std::path::PathBuf;

/// Microseconds and nanoseconds.
const NS_PER_US: u64 = 1_000;

/// Where the hierarchies are mounted, each with the part of it that is mounted there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mounts {
    v1_cpu: Option<Mount>,
    v1_memory: Option<Mount>,
    v1_quota: Option<Mount>,
    v1_blkio: Option<Mount>,
    v2: Option<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    root: String,
    point: String,
}

/// The files of one container. None: nothing counts it here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) cpu: Option<CpuFile>,
    pub(super) memory: Option<MemoryFiles>,
    /// Where the rest is: of version 1 what has to do with limits of CPU, and disks.
    pub(super) v1_cpu_folder: Option<PathBuf>,
    pub(super) v1_blkio_folder: Option<PathBuf>,
    /// Of version 2, where it counts the CPU.
    pub(super) v2_folder: Option<PathBuf>,
}

/// Holds the CPU time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CpuFile {
    /// `cpuacct.usage`, nanoseconds.
    V1(PathBuf),
    /// `cpu.stat`.
    V2(PathBuf),
}

/// Hold the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MemoryFiles {
    pub(super) usage: PathBuf,
    pub(super) stat: PathBuf,
    /// What the line of file pages that nobody has touched for a while begins with.
    pub(super) inactive: &'static str,
}

/// `/proc/self/mountinfo`, read (proc_pid_mountinfo(5)).
pub(super) fn mounts(text: &str) -> Mounts {
    let mut mounts = Mounts::default();
    for line in text.lines() {
        let Some((place, kind)) = line.split_once(" - ") else {
            continue;
        };
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        let (Some(root), Some(point), Some(kind), Some(options)) =
            (place.next(), place.next(), kind.next(), kind.nth(1))
        else {
            continue;
        };
        let has = |controller| options.split(',').any(|option| option == controller);
        let mount = || {
            let (root, point) = (root.to_owned(), point.to_owned());
            Mount { root, point }
        };
        if kind == "cgroup" && has("cpu") {
            mounts.v1_quota = mounts.v1_quota.or_else(|| Some(mount()));
        }
        if kind == "cgroup" && has("blkio") {
            mounts.v1_blkio = mounts.v1_blkio.or_else(|| Some(mount()));
        }
        match kind {
            "cgroup2" => mounts.v2 = mounts.v2.or_else(|| Some(mount())),
            "cgroup" if has("cpuacct") => {
                mounts.v1_cpu = mounts.v1_cpu.or_else(|| Some(mount()));
            }
            "cgroup" if has("memory") => {
                mounts.v1_memory = mounts.v1_memory.or_else(|| Some(mount()));
            }
            _ => {}
        }
    }
    mounts
}

/// The files of `container` by its main process' `/proc/PID/cgroup` (cgroups(7)). A group that does not
/// name the container is another one's: the process has ended, and its number was given anew.
pub(super) fn files(mounts: &Mounts, text: &str, container: &str) -> Files {
    let (mut v1_cpu, mut v1_memory, mut v2) = (None, None, None);
    let (mut v1_quota, mut v1_blkio) = (None, None);
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let has = |wanted| {
            controllers
                .split(',')
                .any(|controller| controller == wanted)
        };
        let folder = |mount: &Option<Mount>| mount.as_ref()?.folder(path, container);
        if has("cpu") {
            v1_quota = folder(&mounts.v1_quota);
        }
        if has("blkio") {
            v1_blkio = folder(&mounts.v1_blkio);
        }
        if has("cpuacct") {
            v1_cpu = folder(&mounts.v1_cpu);
        } else if has("memory") {
            v1_memory = folder(&mounts.v1_memory);
        } else if controllers.is_empty() {
            v2 = folder(&mounts.v2);
        }
    }
    let cpu = v1_cpu.map(|folder| CpuFile::V1(folder.join("cpuacct.usage")));
    let memory = v1_memory.map(|folder| MemoryFiles {
        usage: folder.join("memory.usage_in_bytes"),
        stat: folder.join("memory.stat"),
        inactive: "total_inactive_file ",
    });
    let cpu_v2 = |folder: &PathBuf| CpuFile::V2(folder.join("cpu.stat"));
    let memory_v2 = |folder: &PathBuf| MemoryFiles {
        usage: folder.join("memory.current"),
        stat: folder.join("memory.stat"),
        inactive: "inactive_file ",
    };
    let is_v2 = cpu.is_none();
    Files {
        v1_cpu_folder: v1_quota,
        v1_blkio_folder: v1_blkio,
        v2_folder: v2.clone().filter(|_| is_v2),
        cpu: cpu.or_else(|| v2.as_ref().map(cpu_v2)),
        memory: memory.or_else(|| v2.as_ref().map(memory_v2)),
    }
}

impl Mount {
    /// The container's own group: what it makes below is counted there, too.
    fn folder(&self, path: &str, container: &str) -> Option<PathBuf> {
        let found = path.find(container)?;
        let end = path[found..]
            .find('/')
            .map_or(path.len(), |rest| found + rest);
        let own = &path[..end];
        let below = if self.root == "/" {
            own
        } else {
            own.strip_prefix(self.root.as_str())?
        };
        // Outside of what is mounted here.
        if below.split('/').any(|part| part == "..") {
            return None;
        }
        Some(PathBuf::from(format!("{}{below}", self.point)))
    }
}

/// CPU time in microseconds out of the file's text.
pub(super) fn cpu_us(file: &CpuFile, text: &str) -> Option<u64> {
    match file {
        CpuFile::V1(_) => Some(text.trim().parse::<u64>().ok()? / NS_PER_US),
        CpuFile::V2(_) => value(text, "usage_usec "),
    }
}

/// The working set: what is used without file pages that the kernel would take first. As Docker and
/// Kubernetes count it.
pub(super) fn working_set(files: &MemoryFiles, usage: &str, stat: &str) -> Option<u64> {
    let usage: u64 = usage.trim().parse().ok()?;
    // The two files are read one after the other.
    Some(usage.saturating_sub(value(stat, files.inactive)?))
}

/// The number after `key` at the beginning of a line.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
31 25 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
33 25 0:29 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu
34 25 0:30 / /sys/fs/cgroup/cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpuacct
35 25 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
";
    const V2: &str =
        "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    fn cpu_and_memory(mounts_text: &str, groups: &str) -> (String, String) {
        let files = files(&mounts(mounts_text), groups, "abc123");
        let cpu = files.cpu.map_or(String::new(), |file| match file {
            CpuFile::V1(path) | CpuFile::V2(path) => path.display().to_string(),
        });
        let memory = files
            .memory
            .map_or(String::new(), |files| files.usage.display().to_string());
        (cpu, memory)
    }

    #[test]
    fn both_versions_are_found() {
        for (mounts, groups, cpu, memory) in [
            (
                V1,
                "4:memory:/docker/abc123\n2:cpuacct:/docker/abc123\n1:cpu:/docker/abc123\n0::/\n",
                "/sys/fs/cgroup/cpuacct/docker/abc123/cpuacct.usage",
                "/sys/fs/cgroup/memory/docker/abc123/memory.usage_in_bytes",
            ),
            (
                V2,
                "0::/system.slice/docker-abc123.scope\n",
                "/sys/fs/cgroup/system.slice/docker-abc123.scope/cpu.stat",
                "/sys/fs/cgroup/system.slice/docker-abc123.scope/memory.current",
            ),
            // The container runs an init of its own that makes groups below.
            (
                V2,
                "0::/system.slice/docker-abc123.scope/init.scope\n",
                "/sys/fs/cgroup/system.slice/docker-abc123.scope/cpu.stat",
                "/sys/fs/cgroup/system.slice/docker-abc123.scope/memory.current",
            ),
            // Another process has the number now; or the group is outside of what is mounted.
            (V2, "0::/user.slice/session-1.scope\n", "", ""),
            (V2, "0::/../docker/abc123\n", "", ""),
            ("", "0::/docker/abc123\n", "", ""),
        ] {
            let expected = (cpu.to_owned(), memory.to_owned());
            assert_eq!(cpu_and_memory(mounts, groups), expected, "{groups}");
        }
    }

    #[test]
    fn the_rest_is_found_beside_them() {
        let text = format!(
            "{V1}36 25 0:32 / /sys/fs/cgroup/blkio rw shared:12 - cgroup cgroup rw,blkio\n"
        );
        let groups = "4:memory:/docker/abc123\n3:blkio:/docker/abc123\n2:cpuacct:/docker/abc123\n\
                      1:cpu:/docker/abc123\n0::/\n";
        let v1 = files(&mounts(&text), groups, "abc123");
        let folder = |of: &str| Some(PathBuf::from(format!("/sys/fs/cgroup/{of}/docker/abc123")));
        assert_eq!(v1.v1_cpu_folder, folder("cpu"));
        assert_eq!(v1.v1_blkio_folder, folder("blkio"));
        assert_eq!(v1.v2_folder, None);
        // Both controllers in one hierarchy, as most distributions mount them.
        let joint = "33 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let one = files(&mounts(joint), "2:cpu,cpuacct:/docker/abc123\n", "abc123");
        assert_eq!(one.v1_cpu_folder, folder("cpu,cpuacct"));
        assert!(one.cpu.is_some());
        let v2 = files(&mounts(V2), "0::/docker/abc123\n", "abc123");
        assert_eq!(v2.v2_folder, Some("/sys/fs/cgroup/docker/abc123".into()));
    }

    #[test]
    fn an_agent_in_a_container_sees_a_part_of_the_tree() {
        let mounts = "30 24 0:26 /guest /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let (cpu, _) = cpu_and_memory(mounts, "0::/guest/docker/abc123\n");
        assert_eq!(cpu, "/sys/fs/cgroup/docker/abc123/cpu.stat");
        assert_eq!(cpu_and_memory(mounts, "0::/else/docker/abc123\n").0, "");
    }

    #[test]
    fn numbers_are_read_or_missing_never_zero() {
        let (v1, v2) = (CpuFile::V1(PathBuf::new()), CpuFile::V2(PathBuf::new()));
        assert_eq!(cpu_us(&v1, "1234567\n"), Some(1_234));
        assert_eq!(cpu_us(&v2, "usage_usec 42\nuser_usec 1\n"), Some(42));
        assert_eq!(cpu_us(&v2, "user_usec 1\n"), None);
        assert_eq!(cpu_us(&v1, ""), None);
        let files = MemoryFiles {
            usage: PathBuf::new(),
            stat: PathBuf::new(),
            inactive: "total_inactive_file ",
        };
        let stat = "inactive_file 1\ntotal_inactive_file 30\n";
        assert_eq!(working_set(&files, "100\n", stat), Some(70));
        assert_eq!(working_set(&files, "10\n", stat), Some(0), "read in turn");
        assert_eq!(working_set(&files, "100\n", ""), None);
    }
}
