//! The memory and open-file limits of the process.

use std::path::Path;
use std::{fs, io};

use rustix::process::{Resource, getrlimit, setrlimit};

/// The memory that the process may use before the kernel kills it, in bytes;
/// `None` if there is no limit.
///
/// It is the tightest limit of the process's control group and of those above
/// it: `memory.max` of version 2 (kernel documentation, `cgroup-v2.rst`), else
/// `memory.limit_in_bytes` of version 1.
pub(crate) fn memory() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_of(&groups, Path::new("/sys/fs/cgroup"))
}

/// [`memory`] of a process in `groups`, with the hierarchy mounted at `root`.
fn memory_of(groups: &str, root: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| {
            let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
            let (mount, file) = if controllers.is_empty() {
                (root.to_owned(), "memory.max")
            } else if controllers.split(',').any(|name| name == "memory") {
                (root.join("memory"), "memory.limit_in_bytes")
            } else {
                return None;
            };
            tightest(&mount, group, file)
        })
        .min()
}

/// The least number in `file` of `group` below `mount` and of its ancestors.
/// A container sees its own group as the root, whatever the path says: what is
/// not there is passed over.
fn tightest(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let group = mount.join(group.trim_start_matches('/'));
    group
        .ancestors()
        .take_while(|folder| folder.starts_with(mount))
        .filter_map(|folder| fs::read_to_string(folder.join(file)).ok())
        // `max` in version 2, a number beyond any machine in version 1.
        .filter_map(|value| value.trim().parse().ok())
        .filter(|limit| *limit < 1 << 60)
        .min()
}

/// Raises the soft limit of open files to the hard one, and returns it.
///
/// # Errors
/// If the kernel refuses; the limit is then unchanged.
pub(crate) fn raise_files() -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.current.unwrap_or(u64::MAX))
}

/// Has the kernel give the process memory in small pages from now on.
///
/// mimalloc, which the images use, would hold huge ones of 2 MiB for each of its
/// heaps, which are mostly empty: three times the memory of an idle service.
///
/// # Errors
/// If the kernel does not support huge pages.
pub(crate) fn use_small_pages() -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::thread::disable_transparent_huge_pages(true)?;
    Ok(())
}

/// Maximum number of open files.
pub(crate) fn files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_limit_of_the_group_and_its_ancestors_holds() {
        let v2 = root(&[
            ("pod/memory.max", "67108864\n"),
            ("pod/container/memory.max", "max\n"),
        ]);
        assert_eq!(memory_of("0::/pod/container\n", v2.path()), Some(64 << 20));
        let v1 = root(&[("memory/pod/memory.limit_in_bytes", "134217728\n")]);
        let groups = "4:cpuset:/\n3:cpu,memory:/pod\n0::/\n";
        assert_eq!(memory_of(groups, v1.path()), Some(128 << 20));
    }

    #[test]
    fn a_container_that_sees_its_group_as_the_root_finds_the_limit_there() {
        let root = root(&[("memory.max", "67108864\n")]);
        let groups = "0::/kubepods.slice/pod1/container\n";
        assert_eq!(memory_of(groups, root.path()), Some(64 << 20));
    }

    #[test]
    fn without_a_cgroup_or_a_limit_there_is_none() {
        let root = root(&[
            ("memory.max", "max\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        for groups in ["0::/\n", "4:memory:/\n", "", "nonsense"] {
            assert_eq!(memory_of(groups, root.path()), None, "{groups}");
        }
    }

    #[test]
    fn the_soft_limit_of_files_is_raised_to_the_hard_one() {
        let raised = raise_files().unwrap();
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert_eq!((raised, files()), (hard, hard));
    }
}
