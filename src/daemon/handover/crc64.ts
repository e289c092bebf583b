/** CRC-64 of the "Jones" kind: reflected, from 0, nothing at the end. Source: docs/formats/daemon-state.md, "Envelope". */
const POLYNOMIAL = { high: 0x95ac_9329, low: 0xac4b_c9b5 }

const low = new Uint32Array(256)
const high = new Uint32Array(256)
for (let byte = 0; byte < 256; byte++) {
  let [crcLow, crcHigh] = [byte, 0]
  for (let bit = 0; bit < 8; bit++) {
    const isOdd = (crcLow & 1) === 1
    crcLow = (crcLow >>> 1) | (crcHigh << 31)
    crcHigh >>>= 1
    if (isOdd) {
      crcLow ^= POLYNOMIAL.low
      crcHigh ^= POLYNOMIAL.high
    }
  }
  low[byte] = crcLow
  high[byte] = crcHigh
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
