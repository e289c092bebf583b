/** Node tells the time of day in milliseconds; clients compare times of snapshots with their own, in nanoseconds. */
const MS = 1_000_000n

/** What the monotonic clock lacks to the time of day. */
let offset: bigint | undefined

/** Nanoseconds since 1970: the monotonic clock, held to the time of day. The first call takes up to a millisecond, until that clock ticks. */
export function wallClock(): bigint {
  offset ??= atTick()
  const day = BigInt(Date.now()) * MS
  const now = process.hrtime.bigint() + offset
  // The clock was set, or the tick was seen late.
  if (now < day) offset += day - now
  else if (now >= day + MS) offset -= now - day - MS + 1n
  return process.hrtime.bigint() + offset
}

function atTick(): bigint {
  const before = Date.now()
  for (;;) {
    const now = Date.now()
    if (now !== before) return BigInt(now) * MS - process.hrtime.bigint()
  }
}
