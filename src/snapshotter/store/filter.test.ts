import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Snapshot } from '../snapshot.ts'
import { parseFilters } from './filter.ts'

const LAYER: Snapshot = {
  id: 1,
  key: 'k8s.io/2/sha256:abc',
  parent: 'sha256:base',
  kind: 'committed',
  labels: new Map([
    ['containerd.io/snapshot.ref', 'sha256:abc'],
    ['plain', 'value'],
  ]),
  createdAt: 0n,
  updatedAt: 0n,
  usage: undefined,
}

function matches(...filters: readonly string[]): boolean {
  return parseFilters(filters)(LAYER)
}

test('what containerd asks when a layer is said to be there', () => {
  const filter = (parent: string) => `labels."containerd.io/snapshot.ref"==sha256:abc,parent==${parent}`
  assert.ok(matches(filter('sha256:base')))
  assert.ok(matches(filter('"sha256:base"')))
  assert.ok(!matches(filter('""')))
})

test('selectors of one filter must all match, one filter of many is enough', () => {
  for (const [expected, ...filters] of [
    [true],
    [true, ''],
    [true, 'kind==committed'],
    [false, 'kind==committed,name==x'],
    [true, 'kind==active', 'name~=sha256'],
    [true, ' kind == committed , plain != x '],
    [true, 'labels.plain'],
    [false, 'labels.other'],
    [false, 'nothing'],
    [false, 'nothing==x'],
    [true, 'nothing!=x'],
    [true, 'labels.containerd."io/snapshot.ref"=="sha256\\x3aabc"'],
    [true, 'labels.containerd."io/snapshot"."ref"=="sha256\\072\\u0061bc"'],
    [true, 'name~=/sha256:[a-c]+$/'],
    [true, 'name~=|^k8s\\\\.io/\\\\d/|'],
    [false, 'name~=^sha256'],
    [false, 'kind==Committed'],
    [true, 'parent'],
    [false, 'labels'],
  ] as [boolean, ...string[]][])
    assert.equal(matches(...filters), expected, filters.join(' | '))
})

test('what is no filter is refused with the place in the text', () => {
  for (const [filter, why] of [
    ['kind=committed', 'unsupported operator "="'],
    ['kind', undefined],
    ['kind==', 'expected value or quoted'],
    ['==x', 'expected field or quoted'],
    ['kind==a b', 'unexpected input'],
    ['kind==a,', 'expected field or quoted'],
    ['labels.', 'expected field or quoted'],
    ['name=="open', 'quoted literal not terminated'],
    ['name=="\\q"', 'illegal escape sequence'],
    ['name==/x/', 'invalid quote encountered'],
    ['name~="("', 'missing closing )'],
    ['name~="(?=x)"', 'no lookaround'],
    ['name~="(a)\\\\1"', 'invalid escape sequence'],
    ['name\0==x', 'expected an operator'],
  ] as [string, string | undefined][])
    if (why === undefined) assert.ok(matches(filter))
    else
      assert.throws(
        () => matches(filter),
        (error: Error & { code?: string }) => error.code === 'INVALID_ARGUMENT' && error.message.includes(why),
        filter,
      )
  assert.throws(() => matches('kind=x'), {
    message: 'filters: parse error: [kind >|=|< x]: unsupported operator "=": invalid argument',
  })
  assert.throws(() => matches('kind😀x'), { message: /^filters: parse error: \[kind >\|😀\|< x\]: / })
})
