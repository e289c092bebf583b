/** The kernel room: Linux as typed values. Mounts, the FUSE wire and session, file calls that Node lacks. No word of Nydus in it. */
export { closeOnExec, waitInReads } from './descriptor-flags.ts'
export { sendDatagram } from './datagram.ts'
export { Deadline, deadlineSignal } from './deadline.ts'
export { connectUnix, receiveDescriptors, sendDescriptor } from './descriptor-passing.ts'
export { KernelError } from './errors.ts'
export type { Xattr } from './files.ts'
export {
  changeOwner,
  listXattrs,
  listXattrsOfEnded,
  lockFile,
  makeNode,
  seekData,
  seekHole,
  setTimes,
  setXattr,
  tryLockFile,
} from './files.ts'
export { OpenWatch } from './open-watch.ts'
export { whileAlone } from './lease.ts'
export { ownMemoryFolder, removeLeftMemory } from './own-memory.ts'
export { punchHole } from './punch-hole.ts'
export { copyFileRange } from './copy-range.ts'
export { raiseFileLimit } from './file-limit.ts'
export { fuseConnection, isFuseOver } from './fuse/connection.ts'
export { FuseControl } from './fuse/control.ts'
export type { DirectoryRecord, EntryAnswer } from './fuse/file-reply.ts'
export { FileReply, WireAttributes } from './fuse/file-reply.ts'
export { FileRequest, TooLarge } from './fuse/file-request.ts'
export {
  BATCH_FORGET_IN,
  COPY_IN,
  CREATE_IN,
  FALLOCATE_IN,
  FILE_OPCODE,
  FORGET_IN,
  FSYNC_IN,
  GETATTR_HANDLE,
  GETATTR_IN,
  HANDLE_AT,
  LINK_IN,
  LSEEK_IN,
  MKDIR_IN,
  MKNOD_IN,
  OPEN_IN,
  OPENED,
  RENAME2_IN,
  RENAME_IN,
  SET,
  SETATTR_IN,
  SETXATTR_IN,
  SYNC_DATA_ONLY,
  WRITE_IN,
  WRITE_KEPT,
} from './fuse/file-wire.ts'
export type { FuseSessionFacts, FuseWishes } from './fuse/init.ts'
export { UNCHANGING } from './fuse/init.ts'
export type { FuseNode } from './fuse/notify.ts'
export { detachNow, forgetAttributes, forgetEntry, forgetListing, resendRequests } from './fuse/notify.ts'
export { printRequest } from './fuse/print.ts'
export { FuseAttributes, FuseReply } from './fuse/reply.ts'
export { FuseRequest } from './fuse/request.ts'
export type { FuseAnswering, FuseHandler, FuseServing } from './fuse/serve.ts'
export { sendFuse } from './fuse/send.ts'
export { ANSWER_LATER, answerFuse, answerRequest, serveFuse } from './fuse/serve.ts'
export { ERRNO, MAX_READ_BYTES, OPCODE, READ_IN, XATTR_IN } from './fuse/wire.ts'
export { actingAs, prepareCredentials } from './host/credentials.ts'
export { HostFile, HostFiles } from './host/host-files.ts'
export { HostStat } from './host/stat.ts'
export {
  allocate,
  appendFd,
  changeMode,
  changeOwnerOf,
  changeTimes,
  closeFd,
  cName,
  copyRange,
  getXattrOf,
  linkFd,
  listXattrsOf,
  makeDirectory,
  makeLink,
  makeNodeAt,
  O,
  O_TMPFILE,
  openAt,
  readDirectory,
  readFd,
  readLink,
  removeDirectory,
  removeFile,
  removeXattrOf,
  RENAME,
  renameAt,
  reopen,
  seekFd,
  setXattrOf,
  statAt,
  statFd,
  statFileSystem,
  syncFd,
  syncLater,
  truncateFd,
  TYPE,
  writeFd,
} from './host/sys.ts'
export type { FuseMountOptions, MountEntry } from './mount.ts'
export { mountErofs, mountFuse, mountOverlay, mountTmpfs, readMountInfo, readMountInfoNow, unmount } from './mount.ts'
export { listeningProcess, takeDescriptor } from './other-process.ts'
export { readAt } from './pread.ts'
export { knowsFileSystem, whyNoFuse } from './probe.ts'
export { exitNow, releaseProgramPages } from './process.ts'
export { memoryFile, signalWhenParentEnds } from './process-ties.ts'
export { setReadAhead } from './readahead.ts'
export { prepareCalls } from './syscall.ts'
export { endThread } from './thread.ts'
export { processesTold, wasTold } from './told-processes.ts'
