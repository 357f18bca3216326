//! Memory in large pages.

/// What the kernel calls a huge page on the processors we build for.
pub const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Asks the kernel for large pages under `memory`, as far as whole ones fit into it, which begin at a multiple of
/// [`LARGE_PAGE_BYTES`]. They count from the first use on: ask for what nobody has touched. What is in it stays; where there
/// are none nothing happens.
///
/// ```
/// use backstay_audited::{LARGE_PAGE_BYTES, ask_for_large_pages};
/// let mut memory = vec![7; 3 * LARGE_PAGE_BYTES];
/// ask_for_large_pages(&mut memory);
/// assert!(memory.iter().all(|byte| *byte == 7));
/// ```
pub fn ask_for_large_pages(memory: &mut [u8]) {
    let lead = memory.as_ptr().align_offset(LARGE_PAGE_BYTES);
    let Some(rest) = memory.get_mut(lead..) else { return };
    let whole = rest.len() - rest.len() % LARGE_PAGE_BYTES;
    if whole == 0 {
        return;
    }
    // SAFETY: the range is a part of `memory`, which nobody else has while it is borrowed, and the advice says how the
    // kernel maps it, not what is in it.
    #[allow(unsafe_code)]
    let asked = unsafe { rustix::mm::madvise(rest.as_mut_ptr().cast(), whole, rustix::mm::Advice::LinuxHugepage) };
    // A kernel without them: all is as before.
    let _ = asked;
}
