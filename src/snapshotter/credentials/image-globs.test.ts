import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assert as check, property, stringMatching } from 'fast-check'
import { bestPattern, matchesImage } from './image-globs.ts'

const CASES: readonly (readonly [string, string, boolean])[] = [
  ['registry.io', 'registry.io/app', true],
  ['registry.io', 'other.io/app', false],
  ['*.registry.io', 'eu.registry.io/app', true],
  ['*.registry.io', 'registry.io/app', false],
  ['*.registry.io', 'a.b.registry.io/app', false],
  ['*.*.registry.io', 'a.b.registry.io/app', true],
  ['eu-*.io', 'eu-west.io/app', true],
  ['e?.io', 'eu.io/app', true],
  ['registry.io/team', 'registry.io/team/app', true],
  ['registry.io/team', 'registry.io/other/app', false],
  ['registry.io:8080', 'registry.io:8080/app', true],
  ['registry.io', 'registry.io:8080/app', false],
  ['registry.io:8080', 'registry.io/app', false],
  ['[::1]:5000', '[::1]:5000/app', true],
  ['*', 'localhost/app', true],
  ['*****', 'localhost/app', true],
]

for (const [pattern, image, wanted] of CASES)
  test(`${pattern} ${wanted ? 'is' : 'is not'} for ${image}`, () => assert.equal(matchesImage(pattern, image), wanted))

test('the longest path wins', () => {
  const patterns = ['gcr.io', 'gcr.io/etcd-development', '*.io', 'quay.io/etcd-development']
  assert.equal(bestPattern(patterns, 'gcr.io/etcd-development/etcd'), 'gcr.io/etcd-development')
  assert.equal(bestPattern(patterns, 'gcr.io/app'), 'gcr.io')
  assert.equal(bestPattern(patterns, 'quay.io/app'), '*.io')
  assert.equal(bestPattern(patterns, 'docker.com/app'), undefined)
})

test('stars match as a regular expression does', () => {
  check(
    property(stringMatching(/^[ab*?]{0,12}$/), stringMatching(/^[ab]{0,12}$/), (pattern, label) => {
      const expression = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`)
      assert.equal(matchesImage(`${pattern}.io`, `${label}.io/x`), expression.test(label))
    }),
  )
})
