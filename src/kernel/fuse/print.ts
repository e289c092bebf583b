import { OPCODE, REQUEST } from './wire.ts'

const NAMES = new Map<number, string>(Object.entries(OPCODE).map(([name, code]) => [code, name]))

/** One request as a line for a log: `READ node 0x100000000000007 unique 42 uid 0 pid 1234, 40 bytes`. */
export function printRequest(message: Uint8Array): string {
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength)
  if (bytes.length < REQUEST.size) return `cut request of ${bytes.length} bytes`
  const code = bytes.readUInt32LE(REQUEST.opcode)
  const name = NAMES.get(code) ?? `opcode ${code}`
  const node = bytes.readBigUInt64LE(REQUEST.node).toString(16)
  return `${name} node 0x${node} unique ${bytes.readBigUInt64LE(REQUEST.unique)} uid ${bytes.readUInt32LE(REQUEST.uid)} pid ${bytes.readUInt32LE(REQUEST.pid)}, ${bytes.readUInt32LE(REQUEST.length) - REQUEST.size} bytes`
}
