import { type FuseSessionFacts, readMountInfo } from '../../kernel/index.ts'
import { DaemonError } from '../errors.ts'
import type { SessionOptions } from './session-state.ts'

/** Flags that the original knows; it refuses a state with any other. Bits 0 to 28, 30, 33, 39. Source: docs/formats/daemon-state.md, "Flags". */
const KNOWN_FLAGS = 0x5fff_ffffn | (1n << 33n) | (1n << 39n)

/** What was agreed on at the session's start, as state. Where opens are not exchanged, OPEN and OPENDIR are answered with ENOSYS. */
export function optionsOf(
  { flags, flags2, offered, offered2 }: FuseSessionFacts,
  exchangesOpens: boolean,
): SessionOptions {
  const known = (low: number, high: number): bigint => ((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)) & KNOWN_FLAGS
  return {
    offered: known(offered, offered2),
    agreed: known(flags, flags2),
    noReaddir: false,
    sealSize: false,
    idMapping: [0, 0, 0],
    noOpen: !exchangesOpens,
    noOpendir: !exchangesOpens,
    noWriteback: false,
    killPriv: false,
  }
}

/** The number of a mounted session in the kernel's own form. The mount is not touched: only the table is read. */
export async function connectionOf(at: string): Promise<bigint> {
  const found = (await readMountInfo()).findLast((entry) => entry.at === at)
  if (found === undefined) throw new DaemonError('NOT_READY', `nothing is mounted at ${at} any more`)
  const [major = '0', minor = '0'] = found.device.split(':')
  return (BigInt(major) << 20n) | BigInt(minor)
}
