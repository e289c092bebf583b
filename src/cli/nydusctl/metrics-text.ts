import { LATENCIES, quotient, row, SIZES } from './columns.ts'
import { shown } from './info.ts'
import { count, counts, type Json, member } from './json.ts'
import { floatText } from './rust-text.ts'

const KIB = 1024
const MIB = 1024 * 1024

/** What `metrics cache` prints of `GET /api/v1/metrics/blobcache`. */
export function cacheText(of: Json): string {
  const seconds = (edge: string): number =>
    count(of, `prefetch_${edge}_time_secs`) + count(of, `prefetch_${edge}_time_millis`) / 1000
  const duration = seconds('end') - seconds('begin')
  const amount = count(of, 'prefetch_data_amount')
  const requests = count(of, 'prefetch_requests_count')
  return `
Partial Hits:               ${shown(member(of, 'partial_hits'))}
Whole Hits:                 ${shown(member(of, 'whole_hits'))}
Total Read:                 ${shown(member(of, 'total'))}
Directory:                  ${shown(member(of, 'store_path'))}
Files:                      ${shown(member(of, 'underlying_files'))}
Persister Buffer:           ${shown(member(of, 'buffered_backend_size'))}

Prefetch Workers:           ${shown(member(of, 'prefetch_workers'))}
Prefetch Amount:            ${floatText(amount)} = ${floatText(amount / KIB)} KB
Prefetch Requests:          ${shown(member(of, 'prefetch_requests_count'))}
Prefetch Average Size:      ${quotient(amount, requests)} Bytes
Prefetch Duration:          ${floatText(duration)} Seconds
Prefetch Bandwidth:         ${floatText(amount / KIB / KIB / duration)} MB/S
Prefetch Request Latency:   ${floatText(count(of, 'prefetch_cumulative_time_millis') / requests / 1000)} Seconds
Prefetch Unmerged:          ${shown(member(of, 'prefetch_unmerged_chunks'))}
`
}

/** What `metrics backend` prints of `GET /api/v1/metrics/backend`. */
export function backendText(of: Json): string {
  const requests = counts(of, 'read_count_block_size_dist')
  const averages = counts(of, 'read_cumulative_latency_millis_dist').map((ms, index) =>
    quotient(ms, requests[index] ?? 0),
  )
  return `
Backend Type:       ${shown(member(of, 'backend_type'))}
Read Amount:        ${shown(member(of, 'read_amount_total'))} Bytes (${floatText(count(of, 'read_amount_total') / MIB)} MB)
Read Count:         ${shown(member(of, 'read_count'))}
Read Errors:        ${shown(member(of, 'read_errors'))}

${row('Block Sizes:', 25, SIZES)}
${row('Average Latency(millis):', 25, averages)}

${row('Block Sizes:', 25, SIZES)}
${row('Request Count:', 25, requests)}
`
}

/** What happened at a backend between two looks at it; numbers as in its metrics. */
export interface BackendDelta {
  readonly kibPerSecond: number
  readonly averageBytes: number
  readonly averageMillis: number
  readonly millisBySize: readonly number[]
}

export function backendDelta(before: Json, now: Json, intervalSeconds: number): BackendDelta {
  const grown = (key: string): number => Math.max(0, count(now, key) - count(before, key))
  const grownBy = (key: string): readonly number[] => {
    const old = counts(before, key)
    return counts(now, key).map((value, index) => Math.max(0, value - (old[index] ?? 0)))
  }
  const requests = grown('read_count')
  const bySize = grownBy('read_count_block_size_dist')
  return {
    kibPerSecond: quotient(grown('read_amount_total'), intervalSeconds * KIB),
    averageBytes: quotient(grown('read_amount_total'), requests),
    averageMillis: quotient(grown('read_cumulative_latency_millis_total'), requests),
    millisBySize: grownBy('read_cumulative_latency_millis_dist').map((ms, index) => quotient(ms, bySize[index] ?? 0)),
  }
}

/** A block of `metrics backend --interval`. */
export function deltaText(delta: BackendDelta): string {
  return `
>>> >>> >>> >>> >>>
Backend Read Bandwidth:     ${delta.kibPerSecond} KB/S
Backend Average IO Size:    ${delta.averageBytes} Bytes
Backend Average Latency:    ${delta.averageMillis} millis

Block Sizes/millis:
${row('', 0, SIZES)}
${row('', 0, delta.millisBySize)}
<<< <<< <<< <<< <<<
`
}

const OPERATIONS = [
  'Getattr Readlink Open Release Read Statfs Getxattr Listxattr',
  'Opendir Lookup Readdir Readdirplus Access Forget BatchForget',
].map((line) => line.split(' '))
const READ = 4

/** What `metrics fsstats` prints of `GET /api/v1/metrics`. */
export function fileSystemText(of: Json): string {
  const hits = counts(of, 'fop_hits')
  const bytes = count(of, 'data_read')
  let index = 0
  const operations = OPERATIONS.map((names) => names.map((name) => `${name}(${hits[index++] ?? 0})`).join(' '))
  return `
${row('Read Latency:', 16, LATENCIES)}
${row('Reads Count:', 16, counts(of, 'read_latency_dist'))}

Read Errors: ${counts(of, 'fop_errors')[READ] ?? 0}
Read Data: ${bytes}Bytes (${quotient(bytes, MIB)}MB)

FOP Counters:
${operations.join('\n')}
`
}
