/** Columns of 8 behind a label: the form of the original's tables. Every row ends in spaces there, too. */
export function row(label: string, width: number, cells: ReadonlyArray<string | number>): string {
  return label.padEnd(width) + cells.map((cell) => String(cell).padEnd(8)).join('')
}

/** Names of the size buckets, and of the latency buckets (which are wrong for file systems, whose bounds are finer: docs/nydusctl.md). */
export const SIZES = ['<1K', '1K~', '4K~', '16K~', '64K~', '128K~', '512K~', '1M~'] as const
export const LATENCIES = ['<1ms', '~20ms', '~50ms', '~100ms', '~500ms', '~1s', '~2s', '2s~'] as const

/** A whole division; 0 by nothing. */
export function quotient(of: number, by: number): number {
  return by === 0 ? 0 : Math.floor(of / by)
}
