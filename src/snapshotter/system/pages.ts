import type { Collector } from './collector.ts'
import { PROMETHEUS_TYPE } from './exposition.ts'
import { type RunningHttp, sendText, serveTcp } from './http-server.ts'
import { handleProfiles } from './profiles.ts'

const PATH = '/v1/metrics'
const TEXT = 'text/plain; charset=utf-8'

/** Serves the metrics. Throws SnapshotterError 'BAD_CONFIG'. */
export async function startMetrics(address: string, collector: Collector): Promise<RunningHttp> {
  return await serveTcp(address, 'metrics.address', async (request, response) => {
    request.resume()
    const path = (request.url ?? '').replace(/\?.*/s, '')
    if (path !== PATH) return sendText(response, 404, TEXT, `metrics are at ${PATH}\n`)
    if (request.method !== 'GET') return sendText(response, 405, TEXT, 'only GET\n')
    sendText(response, 200, PROMETHEUS_TYPE, await collector.text())
  })
}

/** Serves profiles. Throws SnapshotterError 'BAD_CONFIG'. */
export async function startProfiles(address: string): Promise<RunningHttp> {
  return await serveTcp(address, 'system.debug.pprof_address', handleProfiles)
}
