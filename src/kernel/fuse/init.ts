import type { FuseRequest } from './request.ts'
import type { FuseReply } from './reply.ts'
import { ERRNO, INIT_FLAG, INIT_IN, INIT_OUT, MAX_PAGES, PAGE } from './wire.ts'

/** What both sides agreed on at session start. */
export interface FuseSessionFacts {
  readonly kernelMinor: number
  readonly flags: number
  readonly flags2: number
  /** What the kernel would have given: bits 0 to 31, and 32 to 63. */
  readonly offered: number
  readonly offered2: number
  /** The kernel lets OPEN and OPENDIR be left out: answer them with ENOSYS, once. */
  readonly noOpen: boolean
  readonly noOpendir: boolean
}

/** What a server wants of its session. */
export interface FuseWishes {
  /** OPEN, OPENDIR and RELEASE are sent: files are written to, or need to be held open. */
  readonly exchangesOpens: boolean
  /** Files change behind the kernel: pages go when size or time of a file does. */
  readonly followsChanges: boolean
  /** Largest WRITE, bytes; a page where nothing is written. */
  readonly maxWriteBytes: number
}

/** A session of files that never change. */
export const UNCHANGING: FuseWishes = { exchangesOpens: false, followsChanges: false, maxWriteBytes: PAGE }

const {
  ASYNC_READ,
  EXPORT_SUPPORT,
  BIG_WRITES,
  AUTO_INVAL_DATA,
  DO_READDIRPLUS,
  READDIRPLUS_AUTO,
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
const ALWAYS = [
  ASYNC_READ,
  BIG_WRITES,
  DO_READDIRPLUS,
  ASYNC_DIO,
  PARALLEL_DIROPS,
  ABORT_ERROR,
  MANY_PAGES,
  CACHE_SYMLINKS,
  INIT_EXT,
]
/** In a session without OPEN nothing changes, so a node can be found again by whoever kept its number. */
const WITHOUT_OPENS = [EXPORT_SUPPORT, NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT]
const WANTED_HIGH = 1 << (HAS_RESEND - 32)
const MINOR = 45
const OLDEST_MINOR = 31

/** Answers INIT: what we want and the kernel offers, no bit more. Gives the body's length or minus an errno. */
export function answerInit(
  request: FuseRequest,
  reply: FuseReply,
  wishes: FuseWishes,
): { length: number; facts: FuseSessionFacts | undefined } {
  const [major, minor] = [request.word(INIT_IN.major), request.word(INIT_IN.minor)]
  if (major !== 7 || minor < OLDEST_MINOR) return { length: -ERRNO.EPROTO, facts: undefined }
  const offered = request.word(INIT_IN.flags)
  const flags = (offered & wantedLow(wishes)) >>> 0
  const offered2 = (flags & (1 << INIT_EXT)) === 0 ? 0 : request.word(INIT_IN.flags2)
  const flags2 = offered2 & WANTED_HIGH
  const body = reply.bytes
  const at = reply.bodyAt
  body.fill(0, at, at + INIT_OUT.size)
  body.writeUInt32LE(7, at + INIT_OUT.major)
  body.writeUInt32LE(Math.min(minor, MINOR), at + INIT_OUT.minor)
  body.writeUInt32LE(request.word(INIT_IN.maxReadahead), at + INIT_OUT.maxReadahead)
  body.writeUInt32LE(flags, at + INIT_OUT.flags)
  body.writeUInt16LE(256, at + INIT_OUT.maxBackground)
  body.writeUInt16LE(192, at + INIT_OUT.congestion)
  body.writeUInt32LE(wishes.maxWriteBytes, at + INIT_OUT.maxWrite)
  body.writeUInt32LE(1, at + INIT_OUT.timeGranularity)
  body.writeUInt16LE(MAX_PAGES, at + INIT_OUT.maxPages)
  body.writeUInt32LE(flags2, at + INIT_OUT.flags2)
  const has = (bit: number): boolean => (flags & (1 << bit)) !== 0
  return {
    length: INIT_OUT.size,
    facts: {
      kernelMinor: minor,
      flags,
      flags2,
      offered,
      offered2,
      noOpen: has(NO_OPEN_SUPPORT),
      noOpendir: has(NO_OPENDIR_SUPPORT),
    },
  }
}

/** Flags of the lower word. READDIRPLUS that looks everything up is for trees where a lookup costs nothing. */
function wantedLow({ exchangesOpens, followsChanges }: FuseWishes): number {
  const wanted = [
    ...ALWAYS,
    ...(exchangesOpens ? [READDIRPLUS_AUTO] : WITHOUT_OPENS),
    followsChanges ? AUTO_INVAL_DATA : EXPLICIT_INVAL_DATA,
  ]
  return wanted.reduce<number>((bits, bit) => bits | (1 << bit), 0)
}
