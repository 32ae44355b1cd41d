//! Memory for what stays: neither swapped (mlock(2)) nor dumped (madvise(2), `MADV_DONTDUMP`) nor handed to a forked child
//! (`MADV_WIPEONFORK`).

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A block of memory of its own, zero at first, wiped when dropped.
pub struct Locked {
    start: NonNull<u8>,
    length: usize,
    /// What the kernel did not grant, in words.
    lacks: Vec<&'static str>,
}

// SAFETY: the block belongs to this value alone, as that of a `Box<[u8]>` does.
unsafe impl Send for Locked {}

impl Locked {
    /// A block of at least `length` bytes, rounded up to whole pages. `None` if there is no memory.
    ///
    /// Pages are locked when they are first touched, so that a block that is mostly empty costs little.
    #[must_use]
    pub fn new(length: usize) -> Option<Self> {
        let page = rustix::param::page_size();
        let length = length.max(1).checked_next_multiple_of(page)?;
        // SAFETY: asks for new pages of our own; nothing that exists is mapped over.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let mut lacks = Vec::new();
        // SAFETY: `start..start + length` was just mapped. Locking and advice change no content.
        unsafe {
            if libc::mlock2(start, length, libc::MLOCK_ONFAULT) != 0 && libc::mlock(start, length) != 0 {
                lacks.push("locked");
            }
            if libc::madvise(start, length, libc::MADV_DONTDUMP) != 0 {
                lacks.push("kept out of dumps");
            }
            if libc::madvise(start, length, libc::MADV_WIPEONFORK) != 0 {
                lacks.push("kept from forked children");
            }
        }
        Some(Self { start: NonNull::new(start.cast())?, length, lacks })
    }

    /// Whether a child that is forked from now on finds the content, as its own copy; it does not if this was never called.
    /// `false`: the kernel refused, and it is as before.
    #[must_use]
    pub fn hand_on(&mut self, hand_on: bool) -> bool {
        let advice = if hand_on { libc::MADV_KEEPONFORK } else { libc::MADV_WIPEONFORK };
        // SAFETY: the block is ours. The advice is about forks to come, and changes no content.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, advice) == 0 }
    }

    /// What the kernel did not grant, as in "the cache is not ...".
    #[must_use]
    pub fn lacks(&self) -> &[&'static str] {
        &self.lacks
    }
}

impl Deref for Locked {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block is mapped, initialised by the kernel, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: the block is ours and is not used again. Giving it back wipes it: the kernel hands out zeroed pages only.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}

/// Keeps every page of this process from being swapped, now and later, if there is no limit to how much it may lock; with
/// one, an allocation over it would fail. Answers whether.
#[must_use]
pub fn lock_everything() -> bool {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    let may_ignore_it = rustix::process::geteuid().is_root() && may_lock();
    if limit.current.is_some() && !may_ignore_it {
        return false;
    }
    // SAFETY: changes how pages are kept, not what they hold.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) == 0 }
}

/// `CAP_IPC_LOCK` in the bounding set: root in a container often lacks it.
fn may_lock() -> bool {
    // SAFETY: asks about one capability by number (14, linux/capability.h).
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, 14, 0, 0, 0) == 1 }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_block_is_zero_writable_and_whole_pages() {
        let mut block = Locked::new(5000).unwrap();
        assert!(block.len() >= 5000 && block.len().is_multiple_of(rustix::param::page_size()));
        assert!(block.iter().all(|byte| *byte == 0));
        block[4999] = 7;
        assert_eq!(block[4999], 7);
    }

    #[test]
    fn the_kernel_says_that_it_is_locked_and_not_dumped() {
        let mut block = Locked::new(1).unwrap();
        let start = format!("{:x}-", block.as_ptr() as usize);
        let flags = || {
            let mut maps = String::new();
            std::fs::File::open("/proc/self/smaps").unwrap().read_to_string(&mut maps).unwrap();
            let mut own = maps.split('\n').skip_while(|line| !line.starts_with(&start));
            let flags = own.find(|line| line.starts_with("VmFlags")).unwrap();
            flags.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let has = |flags: &[String], flag: &str| flags.iter().any(|has| has == flag);
        let at_first = flags();
        // A neighbour may have been merged into the mapping only if its flags are the same.
        assert!(has(&at_first, "dd") && has(&at_first, "wf"), "{at_first:?}");
        assert_eq!(has(&at_first, "lo"), !block.lacks().contains(&"locked"), "{at_first:?}");
        for hand_on in [true, false] {
            assert!(block.hand_on(hand_on));
            assert_eq!(has(&flags(), "wf"), !hand_on);
        }
    }
}
