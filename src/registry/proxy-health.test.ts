import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { ProxyHealth } from './proxy-health.ts'
import { SYSTEM_CLOCK } from './retry.ts'

test('pauses and patience beyond what a timer can wait are long, and no busy loop', async () => {
  const options = {
    pingUrl: 'http://127.0.0.1:1/ping',
    checkIntervalMs: 4_294_967_295_000, // u32 seconds, as a configuration may have them
    checkPauseMs: 4_294_967_295_000,
    pingTimeoutMs: 4_294_967_295_000,
    onNotice: () => undefined,
  }
  const asked: AbortSignal[] = []
  const ping = async (_url: URL, signal: AbortSignal): Promise<number> => {
    asked.push(signal)
    return 200
  }
  const health = new ProxyHealth(options, { clock: SYSTEM_CLOCK, ping })
  const { signal } = new AbortController()
  assert.equal(await health.isGood(signal), true)
  await sleep(100)
  assert.equal(await health.isGood(signal), true)
  assert.deepEqual(
    asked.map(({ aborted }) => aborted),
    [false],
  )
  health.close()
})
