import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromGoFlags } from './go-flags.ts'

test('a long name after one dash is a long flag', () => {
  assert.deepEqual(fromGoFlags(['-source', 'a', '-fs-version=6', '--target', 'b']), [
    '--source',
    'a',
    '--fs-version=6',
    '--target',
    'b',
  ])
})

test('short flags, values and what follows -- stay', () => {
  assert.deepEqual(fromGoFlags(['-D', '-l', 'debug', '5', '--', '-source']), [
    '-D',
    '-l',
    'debug',
    '5',
    '--',
    '-source',
  ])
})

test('switches take a value only after =, in all words that Go knows', () => {
  const switches = new Set(['oci'])
  assert.deepEqual(fromGoFlags(['--oci=true', '-oci=T', '--oci=0', '--oci=FALSE', '--source=true'], switches), [
    '--oci',
    '--oci',
    '--source=true',
  ])
  assert.deepEqual(fromGoFlags(['--oci=maybe', 'true'], switches), ['--oci=maybe', 'true'])
})
