import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { SnapshotStore } from './index.ts'
import { apply, contentOf, KEYS, Model, NAMES, type Operation, operation } from './testdata/operations.ts'

/** In memory if possible: thousands of syncs. */
function temporary(): string {
  return mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'store-model-'))
}

function namesIn(store: SnapshotStore): string[] {
  return readdirSync(join(store.root, 'snapshots')).sort()
}

/** Every record has its whole directory, and every other directory is an orphan. */
function isSound(store: SnapshotStore): void {
  assert.deepEqual(store.warnings, [])
  const live = store.list([]).map((snapshot) => {
    const names = readdirSync(store.directory(snapshot))
    assert.ok(names.includes('fs') && (snapshot.kind !== 'active' || names.includes('work')), snapshot.key)
    return String(snapshot.id)
  })
  const orphans = store.orphans().map((path) => path.slice(path.lastIndexOf('/') + 1))
  assert.deepEqual([...live, ...orphans].sort(), namesIn(store))
  assert.ok(!namesIn(store).some((name) => name.startsWith('new-')))
}

const operations: fc.Arbitrary<Operation | 'reopen'> = fc.oneof(
  { weight: 1, arbitrary: fc.constant('reopen' as const) },
  {
    weight: 20,
    arbitrary: fc.record({
      action: fc.constantFrom('create', 'create', 'view', 'commit', 'commit', 'rebase', 'remove', 'update', 'label'),
      key: fc.constantFrom(...KEYS, ...NAMES, 'rebased'),
      name: fc.constantFrom('', ...NAMES, 'rebased', ...KEYS.slice(0, 1)),
      value: fc.nat(99).map(String),
    }),
  },
)

test('a store does what a simple model says, whatever is asked and whenever it is opened again', () => {
  fc.assert(
    fc.property(fc.array(operations, { minLength: 10, maxLength: 60 }), (list) => {
      const root = temporary()
      let store = SnapshotStore.open(root)
      const model = new Model()
      const ids = new Set<number>()
      try {
        for (const given of list) {
          if (given === 'reopen') {
            store.close()
            store = SnapshotStore.open(root)
          } else {
            const largest = Math.max(0, ...ids)
            assert.equal(apply(store, given), model.apply(given), JSON.stringify(given))
            for (const { id } of store.list([])) if (!ids.has(id)) assert.ok(id > largest, 'an id was given twice')
          }
          for (const { id } of store.list([])) ids.add(id)
          assert.deepEqual(contentOf(store), model.content())
        }
        isSound(store)
      } finally {
        store.close()
        rmSync(root, { recursive: true })
      }
    }),
    { numRuns: 60 },
  )
})

test('a process that is killed at any point leaves what it said, or one step more', { timeout: 180_000 }, async () => {
  const root = temporary()
  const program = join(import.meta.dirname, 'testdata/operating-process.ts')
  let model = new Model()
  try {
    for (const [seed, steps] of [40, 3, 111, 0, 250, 77].entries()) {
      const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program, root, String(seed)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      child.stdout.setEncoding('utf8')
      let said = ''
      while (said.split('\n').length - 2 < steps) said += String((await once(child.stdout, 'data'))[0])
      child.kill('SIGKILL')
      said += await text(child.stdout)
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
      const done = said.split('\n').length - 2 // `open`, and the end
      for (let step = 0; step < done; step += 1) model.apply(operation(seed, step))
      const more = model.copy()
      more.apply(operation(seed, done))
      const store = SnapshotStore.open(root)
      const found = contentOf(store)
      if (JSON.stringify(found) !== JSON.stringify(model.content())) model = more
      assert.deepEqual(found, model.content())
      isSound(store)
      store.close()
    }
  } finally {
    rmSync(root, { recursive: true })
  }
})
