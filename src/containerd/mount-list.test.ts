import assert from 'node:assert/strict'
import { test } from 'node:test'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import * as fc from 'fast-check'
import { encodeMounts, NOTHING } from './mount-list.ts'
import { MountsResponseSchema, PrepareSnapshotResponseSchema } from './proto/snapshots_pb.ts'

const texts = fc.oneof(
  fc.constantFrom('', 'overlay', 'x'.repeat(127), 'x'.repeat(128), 'ä'.repeat(64), `lowerdir=${'/a/b'.repeat(5000)}`),
  fc.string({ unit: 'grapheme' }),
)
const mounts = fc.array(
  fc.record({ type: texts, source: texts, target: texts, options: fc.array(texts, { maxLength: 5 }) }),
  { maxLength: 4 },
)

test('mounts are the bytes that the general encoder makes of them', () => {
  fc.assert(
    fc.property(mounts, (list) => {
      const bytes = encodeMounts(list)
      assert.ok(
        bytes.equals(toBinary(PrepareSnapshotResponseSchema, create(PrepareSnapshotResponseSchema, { mounts: list }))),
      )
      assert.deepEqual(fromBinary(MountsResponseSchema, bytes), create(MountsResponseSchema, { mounts: list }))
    }),
  )
  assert.equal(NOTHING.length, 0)
})
