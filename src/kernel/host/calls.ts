/**
 * System calls of file servers: files by descriptors and single names in directories, so that no path is ever resolved twice. A separate table from `libc`'s: only who serves a
 * directory of the host pays for loading it.
 */
import { bindCalls, type Native, type Path } from '../syscall.ts'

export interface HostCalls {
  openat: Native<[directory: number, name: Path, flags: number, mode: number]>
  statx: Native<[directory: number, name: Path, flags: number, mask: number, into: Uint32Array]>
  mkdirat: Native<[directory: number, name: Path, mode: number]>
  mknodat: Native<[directory: number, name: Path, mode: number, device: number]>
  symlinkat: Native<[target: Path, directory: number, name: Path]>
  linkat: Native<[from: number, name: Path, to: number, newName: Path, flags: number]>
  unlinkat: Native<[directory: number, name: Path, flags: number]>
  renameat2: Native<[from: number, name: Path, to: number, newName: Path, flags: number]>
  readlinkat: Native<[directory: number, name: Path, into: Uint8Array, size: number]>
  chmod: Native<[path: Path, mode: number]>
  fchownat: Native<[directory: number, name: Path, uid: number, gid: number, flags: number]>
  utimensat: Native<[directory: number, name: Path, times: Uint8Array, flags: number]>
  ftruncate: Native<[fd: number, length: number]>
  fallocate: Native<[fd: number, mode: number, offset: number, length: number]>
  copy_file_range: Native<
    [from: number, fromOffset: Uint8Array, to: number, toOffset: Uint8Array, length: number, flags: number]
  >
  pread: Native<[fd: number, address: number, size: number, offset: number]>
  pwrite: Native<[fd: number, from: Uint8Array, size: number, offset: number]>
  pwritev2: Native<[fd: number, parts: Uint8Array, count: number, offset: number, flags: number]>
  lseek: Native<[fd: number, offset: number | bigint, whence: number]>
  fsync: Native<[fd: number]>
  fdatasync: Native<[fd: number]>
  close: Native<[fd: number]>
  getdents64: Native<[fd: number, into: Uint8Array, size: number]>
  fstatfs: Native<[fd: number, into: Uint8Array]>
  getxattr: Native<[path: Path, name: Path, into: Uint8Array, size: number]>
  setxattr: Native<[path: Path, name: Path, value: Uint8Array, size: number, flags: number]>
  listxattr: Native<[path: Path, into: Uint8Array, size: number]>
  removexattr: Native<[path: Path, name: Path]>
  name_to_handle_at: Native<[directory: number, name: Path, handle: Uint8Array, mountId: Uint8Array, flags: number]>
  open_by_handle_at: Native<[mount: number, handle: Uint8Array, flags: number]>
  setfsuid: Native<[uid: number]>
  setfsgid: Native<[gid: number]>
  prctl: Native<[option: number, value: number]>
  unshare: Native<[flags: number]>
  umask: Native<[mask: number]>
}

const SIGNATURES: Readonly<Record<keyof HostCalls, string>> = {
  openat: 'int openat(int, const void*, int, int)',
  statx: 'int statx(int, const void*, int, uint, void*)',
  mkdirat: 'int mkdirat(int, const void*, uint)',
  mknodat: 'int mknodat(int, const void*, uint, uint64_t)',
  symlinkat: 'int symlinkat(const void*, int, const void*)',
  linkat: 'int linkat(int, const void*, int, const void*, int)',
  unlinkat: 'int unlinkat(int, const void*, int)',
  renameat2: 'int renameat2(int, const void*, int, const void*, uint)',
  readlinkat: 'long readlinkat(int, const void*, void*, size_t)',
  chmod: 'int chmod(const void*, uint)',
  fchownat: 'int fchownat(int, const void*, uint, uint, int)',
  utimensat: 'int utimensat(int, const void*, const void*, int)',
  ftruncate: 'int ftruncate(int, int64_t)',
  fallocate: 'int fallocate(int, int, int64_t, int64_t)',
  copy_file_range: 'long copy_file_range(int, void*, int, void*, size_t, uint)',
  pread: 'long pread(int, uintptr_t, size_t, int64_t)',
  pwrite: 'long pwrite(int, const void*, size_t, int64_t)',
  pwritev2: 'long pwritev2(int, const void*, int, int64_t, int)',
  lseek: 'int64_t lseek(int, int64_t, int)',
  fsync: 'int fsync(int)',
  fdatasync: 'int fdatasync(int)',
  close: 'int close(int)',
  getdents64: 'long getdents64(int, void*, size_t)',
  fstatfs: 'int fstatfs(int, void*)',
  getxattr: 'long getxattr(const void*, const void*, void*, size_t)',
  setxattr: 'int setxattr(const void*, const void*, const void*, size_t, int)',
  listxattr: 'long listxattr(const void*, void*, size_t)',
  removexattr: 'int removexattr(const void*, const void*)',
  name_to_handle_at: 'int name_to_handle_at(int, const void*, void*, void*, int)',
  open_by_handle_at: 'int open_by_handle_at(int, void*, int)',
  setfsuid: 'int setfsuid(uint)',
  setfsgid: 'int setfsgid(uint)',
  prctl: 'int prctl(int, ulong)',
  unshare: 'int unshare(int)',
  umask: 'uint umask(uint)',
}

let bound: HostCalls | undefined

/** The calls, bound at first use. A result of -1 means failure; `libc().errno()` of the same thread tells why. */
export function hostCalls(): HostCalls {
  bound ??= bindCalls(SIGNATURES) as unknown as HostCalls // one row a key, by the type of SIGNATURES
  return bound
}
