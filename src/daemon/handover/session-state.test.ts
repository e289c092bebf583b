import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { DaemonError } from '../errors.ts'
import { crc64 } from './crc64.ts'
import { FieldWriter, seal } from './envelope.ts'
import { decodeState, encodeState, type MountKind, type MountRecord, type SessionState } from './session-state.ts'

/** Written by the original, release 2.4.4 on x86_64. */
const ORIGINAL = readFileSync(join(import.meta.dirname, '../testdata/session-state.bin'))
const skip = process.arch === 'x64' ? false : 'the carried state is of another processor'

test('the checksum is the one of the published vectors', () => {
  assert.equal(crc64(Buffer.of(1, 2, 3, 4, 5)), 0xfb04_60de_0638_3654n)
  assert.equal(crc64(Buffer.alloc(16, 0x7b)), 0x29d5_3572_1632_6566n)
  assert.equal(crc64(Buffer.from('123456789')), 0xe9c6_d914_c4b8_d9can)
})

test('a state of the original is understood, and written again byte for byte', { skip }, () => {
  const state = decodeState(ORIGINAL)
  assert.deepEqual(
    state.mounts.map(({ path, kind, source, slot, prefetchFiles }) => ({ path, kind, source, slot, prefetchFiles })),
    [
      { path: '/a/b', kind: 'rafs', source: 'image.boot', slot: 1, prefetchFiles: undefined },
      { path: '/c', kind: 'rafs', source: 'image.boot', slot: 2, prefetchFiles: ['/x', '/y'] },
    ].sort((a, b) => (a.path === state.mounts[0]?.path ? -1 : b.path === state.mounts[0]?.path ? 1 : 0)),
  )
  assert.deepEqual([state.nextDirectory, state.nextSlot, state.directories.length], [6, 4, 4])
  assert.equal(state.options.noOpen, false)
  assert.equal((state.options.offered >> 39n) & 1n, 1n)
  assert.deepEqual(encodeState(state), ORIGINAL)
})

test('a state that was cut, or changed in any byte, is refused', { skip }, () => {
  for (let at = 0; at < ORIGINAL.length; at++) {
    assert.throws(() => decodeState(ORIGINAL.subarray(0, at)), DaemonError)
    const changed = Buffer.from(ORIGINAL)
    changed.writeUInt8((changed.readUInt8(at) + 1) % 256, at)
    assert.throws(() => decodeState(changed), { code: 'HANDOVER' })
  }
})

const text = fc.string({ unit: 'grapheme', maxLength: 40 })
const flag = fc.boolean()
const mounts = (kind: MountKind, more: Readonly<Record<string, fc.Arbitrary<string>>> = {}) =>
  fc.record(
    {
      path: text,
      kind: fc.constant(kind),
      source: text,
      document: text,
      prefetchFiles: fc.option(fc.array(text, { maxLength: 3 }), { nil: undefined }),
      slot: fc.integer({ min: 1, max: 255 }),
      ...more,
    },
    { noNullPrototype: true },
  ) as fc.Arbitrary<MountRecord>
const states: fc.Arbitrary<SessionState> = fc.record({
  mounts: fc.uniqueArray(fc.oneof(mounts('rafs'), mounts('passthrough'), mounts('overlay', { journal: text })), {
    maxLength: 6,
    comparator: (a, b) => a.path === b.path || a.slot === b.slot,
  }),
  connection: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  options: fc.record(
    {
      offered: fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }),
      agreed: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      noReaddir: flag,
      sealSize: flag,
      idMapping: fc.tuple(fc.nat(), fc.nat(), fc.nat()),
      noOpen: flag,
      noOpendir: flag,
      noWriteback: flag,
      killPriv: flag,
    },
    { noNullPrototype: true },
  ),
  directories: fc.constantFrom(
    [],
    [{ ino: 2, parent: 1, name: 'a' }],
    [
      { ino: 7, parent: 3, name: 'ü' },
      { ino: 3, parent: 1, name: 'b' },
    ],
  ),
  nextDirectory: fc.integer({ min: 8, max: Number.MAX_SAFE_INTEGER }),
  nextSlot: fc.nat(255),
  settings: fc.dictionary(text, text, { maxKeys: 3 }).map((of) => new Map(Object.entries(of))),
})

test('what is written reads back', () => {
  fc.assert(fc.property(states, (state) => assert.deepEqual(decodeState(encodeState(state)), { ...state })))
})

test('any body in a right envelope is a state or is refused, at once', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (body) => {
      try {
        decodeState(seal(body))
      } catch (error) {
        assert.ok(error instanceof DaemonError && error.code === 'HANDOVER', String(error))
      }
    }),
  )
  const endless = new FieldWriter().u64(2n ** 53n - 1n)
  assert.throws(() => decodeState(seal(endless.bytes)), /more than fit/)
  assert.throws(() => decodeState(seal(new FieldWriter().u64(2n ** 64n - 1n).bytes)), /a number in it/)
})

test('mounts with one path or slot, and directories without parents or in circles, are refused', () => {
  const good = decodeState(encodeState(fc.sample(states, { numRuns: 1, seed: 7 })[0] ?? assert.fail()))
  const mount = { path: '/a', kind: 'rafs', source: 's', document: '{}', prefetchFiles: undefined, slot: 1 } as const
  const bad: ReadonlyArray<Partial<SessionState>> = [
    { mounts: [mount, { ...mount, path: '/b' }] },
    { mounts: [mount, { ...mount, slot: 2 }] },
    { mounts: [{ ...mount, slot: 0 }] },
    {
      directories: [
        { ino: 2, parent: 3, name: 'a' },
        { ino: 3, parent: 2, name: 'b' },
      ],
    },
    { directories: [{ ino: 5, parent: 4, name: 'a' }] },
    {
      directories: [
        { ino: 2, parent: 1, name: 'a' },
        { ino: 2, parent: 1, name: 'b' },
      ],
    },
    { directories: [{ ino: 2, parent: 1, name: 'a/b' }] },
    { directories: [{ ino: 9, parent: 1, name: 'a' }], nextDirectory: 9 },
    { options: { ...good.options, offered: 0n } },
  ]
  for (const change of bad)
    assert.throws(() => decodeState(encodeState({ ...good, directories: [], mounts: [], ...change })), {
      code: 'HANDOVER',
    })
})
