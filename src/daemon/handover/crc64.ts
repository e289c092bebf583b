/** CRC-64 of the "Jones" kind: reflected, from 0, nothing at the end. Source: docs/formats/daemon-state.md, "Envelope". */
const POLYNOMIAL = 0x95ac_9329_ac4b_c9b5n

const low = new Uint32Array(256)
const high = new Uint32Array(256)
for (let byte = 0; byte < 256; byte++) {
  let crc = BigInt(byte)
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ POLYNOMIAL : crc >> 1n
  low[byte] = Number(crc & 0xffff_ffffn)
  high[byte] = Number(crc >> 32n)
}

/** The checksum of all bytes. */
export function crc64(bytes: Uint8Array): bigint {
  let [crcLow, crcHigh] = [0, 0]
  for (let at = 0; at < bytes.length; at++) {
    const index = (crcLow ^ bytes[at]) & 0xff
    crcLow = ((crcLow >>> 8) | (crcHigh << 24)) ^ low[index]
    crcHigh = (crcHigh >>> 8) ^ high[index]
  }
  return (BigInt(crcHigh >>> 0) << 32n) | BigInt(crcLow >>> 0)
}
