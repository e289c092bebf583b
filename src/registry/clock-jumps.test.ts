/** Clocks that are set while a client lives: tokens and resting mirrors do not depend on them for long. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fromPassword } from './credentials.ts'
import { RegistryError } from './errors.ts'
import { MirrorState } from './mirrors.ts'
import { blobOf, hurriedClock, pattern, testClient, testRegistry } from './testing.ts'

const DAY_MS = 86_400_000

test('a clock that jumps days forward or back costs a login, and no read', async () => {
  const login = fromPassword('me', 'pw')
  const auth = { kind: 'bearer', users: { me: 'pw' }, tokenLifeMs: 1_000 } as const
  await using registry = await testRegistry({ auth })
  const content = pattern(5_000)
  const clock = hurriedClock()
  await using client = testClient(registry.server.host, { clock, credentials: login })
  const blob = blobOf(content)
  await client.repository.uploadBlob(blob)
  for (const jump of [0, DAY_MS, -2 * DAY_MS]) {
    clock.advance(jump)
    // After the jump back the client believes in a token that the server no longer takes.
    await sleep(1_100)
    const bytes = new Uint8Array(1_000)
    await client.repository.readRange(blob.digest, 100, bytes, {})
    assert.deepEqual(Buffer.from(bytes), content.subarray(100, 1_100))
  }
})

test('a mirror that rests while the clock is set back a day is asked again', () => {
  const clock = hurriedClock()
  const mirror = new MirrorState({ url: 'http://127.0.0.1:1', failureLimit: 1, cooldownMs: 5_000 }, clock)
  mirror.failed(new RegistryError('UNREACHABLE', 'no'))
  assert.equal(mirror.healthy, false)
  clock.advance(-DAY_MS)
  assert.equal(mirror.healthy, true)
})
