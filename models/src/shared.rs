//! Buffers that the threads of a step write to at the same time, each in its own part.
//!
//! Owns the raw pointers for that. Which part is whose is decided in [`crate::forward`], where a barrier stands between a
//! write and every read of it by another thread.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice of which threads hold disjoint parts.
#[derive(Debug)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    length: usize,
    _of: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

#[expect(unsafe_code, reason = "whoever takes a part promises that it is disjoint")]
// SAFETY: the parts are handed out by unsafe functions only.
unsafe impl<T: Send> Send for Shared<'_, T> {}
#[expect(unsafe_code, reason = "whoever takes a part promises that it is disjoint")]
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), length: slice.len(), _of: PhantomData }
    }

    /// A part to write.
    ///
    /// # Safety
    /// Nobody else reads or writes any of it until the next barrier.
    #[expect(unsafe_code, reason = "the caller promises that the part is disjoint")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: within the slice, checked above; disjoint, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// Nobody else reads or writes it until the next barrier.
    #[expect(unsafe_code, reason = "the caller promises that the element is its own")]
    pub(crate) unsafe fn write(&self, at: usize, value: T)
    where
        T: Copy,
    {
        assert!(at < self.length);
        // SAFETY: within the slice, checked above; disjoint, as the caller promises.
        unsafe { self.start.add(at).write(value) };
    }

    /// A part to read.
    ///
    /// # Safety
    /// Nobody writes any of it until the next barrier.
    #[expect(unsafe_code, reason = "the caller promises that nobody writes")]
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.length);
        // SAFETY: within the slice, checked above; not written to, as the caller promises.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }
}
