import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { CacheCollector } from './cache-collector.ts'

const [OLD, USED] = ['1'.repeat(64), '2'.repeat(64)]
const LOG = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }

test('what an image uses that is mounted while others are asked for their blobs stays in the cache', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'collector-'))
  try {
    for (const id of [OLD, USED]) writeFileSync(join(directory, `${id}.blob.data`), '')
    const collector = new CacheCollector(directory, LOG)
    const signal = AbortSignal.timeout(60_000)
    const used = new Set<string>()
    const collected = await collector.collect(
      async () => {
        const before = new Set(used)
        if (used.size === 0) await collector.whileMounting(async () => void used.add(USED))
        return before
      },
      () => [],
      signal,
    )
    assert.deepEqual(readdirSync(directory), [`${USED}.blob.data`])
    assert.deepEqual([collected.removed, collected.skipped], [1, undefined])
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test('what somebody wants from a moment on before it is its turn stays in the cache', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'collector-'))
  try {
    for (const id of [OLD, USED]) writeFileSync(join(directory, `${id}.blob.data`), '')
    let asked = 0
    const roots = (): string[] => (asked++ === 0 ? [] : [`sha256:${USED}`])
    const collector = new CacheCollector(directory, LOG)
    const { removed } = await collector.collect(async () => new Set(), roots, AbortSignal.timeout(60_000))
    assert.deepEqual([removed, readdirSync(directory)], [1, [`${USED}.blob.data`]])
  } finally {
    rmSync(directory, { recursive: true })
  }
})
