//! Descriptors of the current task.

use core::ffi::c_void;

use crate::mem::{Memory as _, Untyped, offset};

/// `include/uapi/linux/stat.h`
pub(crate) const S_IFMT: u16 = 0o170_000;
pub(crate) const S_IFSOCK: u16 = 0o140_000;

/// The `struct sock` behind a descriptor of the current task.
#[inline(always)]
pub(crate) fn socket_of(current: *const c_void, fd: u32) -> Option<*const c_void> {
    // SAFETY: the table of the current task is valid during its system call. If another thread closes the descriptor
    // meanwhile, reads give zeros or another file, which is checked to be a socket.
    unsafe {
        let file = file_of(current, fd);
        if !is_socket(mode_of(file)) {
            return None;
        }
        let sk = socket_of_file(file);
        (!sk.is_null()).then_some(sk)
    }
}

/// The `struct file` behind a descriptor of a task; NULL if there is none.
///
/// # Safety
/// `task` is a `struct task_struct`.
#[inline(always)]
pub(crate) unsafe fn file_of(task: *const c_void, fd: u32) -> *const c_void {
    // SAFETY: guaranteed by the caller; reads through an invalid pointer give zeros.
    unsafe {
        let files: *const c_void = Untyped::read(task, offset!(task_files));
        let table: *const c_void = Untyped::read(files, offset!(files_fdt));
        let max: u32 = Untyped::read(table, offset!(fdt_max));
        if fd >= max {
            return core::ptr::null();
        }
        let array: *const c_void = Untyped::read(table, offset!(fdt_fd));
        Untyped::read(array.byte_add(fd as usize * size_of::<usize>()), 0)
    }
}

/// The inode of a file; NULL for NULL.
///
/// # Safety
/// `file` is a `struct file` or NULL.
#[inline(always)]
pub(crate) unsafe fn inode_of(file: *const c_void) -> *const c_void {
    // SAFETY: guaranteed by the caller.
    unsafe { Untyped::read(file, offset!(file_inode)) }
}

/// The mode of a file's inode; 0 for NULL.
///
/// # Safety
/// `file` is a `struct file` or NULL.
#[inline(always)]
pub(crate) unsafe fn mode_of(file: *const c_void) -> u16 {
    // SAFETY: guaranteed by the caller.
    unsafe { Untyped::read(inode_of(file), offset!(inode_mode)) }
}

/// Whether the mode of an inode is that of a socket.
#[inline(always)]
pub(crate) const fn is_socket(mode: u16) -> bool {
    mode & S_IFMT == S_IFSOCK
}

/// The `struct sock` behind a file that is a socket, or NULL.
///
/// # Safety
/// `file` is a `struct file` of a socket.
#[inline(always)]
pub(crate) unsafe fn socket_of_file(file: *const c_void) -> *const c_void {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let socket: *const c_void = Untyped::read(file, offset!(file_private));
        Untyped::read(socket, offset!(socket_sk))
    }
}

/// The inode of the executable of a task; NULL if it has none.
///
/// # Safety
/// `task` is a `struct task_struct`.
#[inline(always)]
pub(crate) unsafe fn inode_of_exe(task: *const c_void) -> *const c_void {
    // SAFETY: guaranteed by the caller; a read through an invalid pointer gives zero.
    unsafe {
        let mm: *const c_void = Untyped::read(task, offset!(task_mm));
        let file: *const c_void = Untyped::read(mm, offset!(mm_exe_file));
        inode_of(file)
    }
}
