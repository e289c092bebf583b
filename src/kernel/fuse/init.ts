import type { FuseRequest } from './request.ts'
import type { FuseReply } from './reply.ts'
import { ERRNO, INIT_FLAG, INIT_IN, INIT_OUT, MAX_PAGES, PAGE } from './wire.ts'

/** What both sides agreed on at session start. */
export interface FuseSessionFacts {
  readonly kernelMinor: number
  readonly flags: number
  readonly flags2: number
  /** The kernel lets OPEN and OPENDIR be left out: answer them with ENOSYS, once. */
  readonly noOpen: boolean
  readonly noOpendir: boolean
}

const {
  ASYNC_READ,
  EXPORT_SUPPORT,
  BIG_WRITES,
  DO_READDIRPLUS,
  ASYNC_DIO,
  NO_OPEN_SUPPORT,
  PARALLEL_DIROPS,
  ABORT_ERROR,
  MAX_PAGES: MANY_PAGES,
  CACHE_SYMLINKS,
  NO_OPENDIR_SUPPORT,
  EXPLICIT_INVAL_DATA,
  INIT_EXT,
  HAS_RESEND,
} = INIT_FLAG
const WANTED = [
  ASYNC_READ,
  EXPORT_SUPPORT,
  BIG_WRITES,
  DO_READDIRPLUS,
  ASYNC_DIO,
  NO_OPEN_SUPPORT,
  PARALLEL_DIROPS,
  ABORT_ERROR,
  MANY_PAGES,
  CACHE_SYMLINKS,
  NO_OPENDIR_SUPPORT,
  EXPLICIT_INVAL_DATA,
  INIT_EXT,
]
const WANTED_LOW = WANTED.reduce<number>((bits, bit) => bits | (1 << bit), 0)
const WANTED_HIGH = 1 << (HAS_RESEND - 32)
const MINOR = 45
const OLDEST_MINOR = 31

/** Answers INIT: what we want and the kernel offers, no bit more. Gives the body's length or minus an errno. */
export function answerInit(
  request: FuseRequest,
  reply: FuseReply,
): { length: number; facts: FuseSessionFacts | undefined } {
  const [major, minor] = [request.word(INIT_IN.major), request.word(INIT_IN.minor)]
  if (major !== 7 || minor < OLDEST_MINOR) return { length: -ERRNO.EPROTO, facts: undefined }
  const offered = request.word(INIT_IN.flags)
  const flags = (offered & WANTED_LOW) >>> 0
  const flags2 = (flags & (1 << INIT_EXT)) === 0 ? 0 : request.word(INIT_IN.flags2) & WANTED_HIGH
  const body = reply.bytes
  const at = reply.bodyAt
  body.fill(0, at, at + INIT_OUT.size)
  body.writeUInt32LE(7, at + INIT_OUT.major)
  body.writeUInt32LE(Math.min(minor, MINOR), at + INIT_OUT.minor)
  body.writeUInt32LE(request.word(INIT_IN.maxReadahead), at + INIT_OUT.maxReadahead)
  body.writeUInt32LE(flags, at + INIT_OUT.flags)
  body.writeUInt16LE(256, at + INIT_OUT.maxBackground)
  body.writeUInt16LE(192, at + INIT_OUT.congestion)
  body.writeUInt32LE(PAGE, at + INIT_OUT.maxWrite)
  body.writeUInt32LE(1, at + INIT_OUT.timeGranularity)
  body.writeUInt16LE(MAX_PAGES, at + INIT_OUT.maxPages)
  body.writeUInt32LE(flags2, at + INIT_OUT.flags2)
  const has = (bit: number): boolean => (flags & (1 << bit)) !== 0
  return {
    length: INIT_OUT.size,
    facts: { kernelMinor: minor, flags, flags2, noOpen: has(NO_OPEN_SUPPORT), noOpendir: has(NO_OPENDIR_SUPPORT) },
  }
}
