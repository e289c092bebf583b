import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { compileRegularExpression } from './regular-expression.ts'

test('expressions mean what they mean in Go', () => {
  for (const [pattern, yes, no] of [
    ['', ['', 'x'], []],
    ['^a|b$', ['ax', 'xb'], ['xa', 'bx']],
    ['a{2,3}$', ['aa', 'baaa'], ['a', 'ab']],
    ['^a{2}$', ['aa'], ['aaa']],
    ['^a{,2}$', ['a{,2}'], ['aa']],
    ['^(?:ab)*?$', ['', 'abab'], ['aba']],
    ['^(?P<n>x)(?<m>y)$', ['xy'], ['x']],
    ['(?i)sTraSse', ['STRASSE'], ['stra e']],
    ['^(?i:a)b$', ['Ab'], ['AB']],
    ['(?i)[^k]', ['x'], ['K', '\u212a']],
    ['^.$', ['x', '\u{1f600}'], ['\n', 'xx']],
    ['(?s)^.$', ['\n'], ['']],
    ['(?m)^b$', ['a\nb\nc'], ['ab']],
    ['\\Ab\\z', ['b'], ['a\nb']],
    ['\\bfoo\\b', ['a foo.'], ['food']],
    ['o\\B', ['food'], ['o.']],
    ['^\\s$', [' ', '\f'], ['\v', '\u00a0']],
    ['^[[:alpha:]_-]+$', ['a_b-c'], ['1']],
    ['^[]a]+$', [']a'], ['b']],
    ['^[^\\d\\pL]+$', ['-+'], ['1', 'é']],
    ['^\\p{Greek}+\\P{L}$', ['αβγ1'], ['abc1']],
    ['^\\Qa.b*\\E+$', ['a.b**'], ['axb']],
    ['^\\x41\\x{1F600}\\101\\.$', ['A\u{1f600}A.'], ['']],
    ['^(a|b|)*c$', ['ababc', 'c'], ['abd']],
    ['^(a*)*$', ['aaaa', ''], ['b']],
    ['^(?:a{0,2}){3}$', ['', 'aaaaaa'], ['aaaaaaa']],
    [`^${'('.repeat(20)}${'){1000}'.repeat(20)}a$`, ['a'], ['aa']],
  ] as [string, string[], string[]][]) {
    const matches = compileRegularExpression(pattern)
    for (const text of yes) assert.ok(matches(text), `${pattern} on ${JSON.stringify(text)}`)
    for (const text of no) assert.ok(!matches(text), `${pattern} not on ${JSON.stringify(text)}`)
  }
})

test('what Go refuses is refused', () => {
  for (const pattern of [
    '(',
    ')',
    'a**',
    '*a',
    'a{1001}',
    'a{2,1}',
    '[a',
    '[b-a]',
    '[[:no:]]',
    '\\pX',
    '\\p{Nothing}',
    '\\',
    '\\y',
    '\\C',
    '(?<=a)',
    '(?!a)',
    '(?x)a',
    '(a)\\1',
    '(?P=n)',
    '\\x{110000}',
    'x'.repeat(5000),
    '('.repeat(2000),
  ])
    assert.throws(() => compileRegularExpression(pattern), { code: 'INVALID_ARGUMENT' }, pattern.slice(0, 20))
})

test('expressions that ruin other engines take their time and no more', () => {
  const text = `${'a'.repeat(4096)}!`
  for (const pattern of ['(a*)*$', '(a+)+b', '(a|a)*b', '(a|aa)+$', '(.*)*=x', 'a?'.repeat(100) + 'a'.repeat(100)])
    compileRegularExpression(pattern)(text)
  const huge = compileRegularExpression('(a?){1000}(a?){1000}b')
  assert.throws(() => huge('a'.repeat(30_000)), { code: 'INVALID_ARGUMENT', message: /takes too long/ })
  const wide = compileRegularExpression(`[${'b'.repeat(3000)}a]{1000}b`)
  assert.throws(() => wide(text), { code: 'INVALID_ARGUMENT', message: /takes too long/ })
  assert.throws(() => compileRegularExpression('((a{100}){100}){100}'), {
    code: 'INVALID_ARGUMENT',
    message: /takes too long/,
  })
})

test('what both engines know, they know alike', () => {
  const atom = fc.constantFrom('a', 'b', '.', '[ab]', '[^a]', '\\d', '\\w', '1', '^', '$', '\\b')
  const { tree } = fc.letrec<{ tree: string }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      atom,
      fc.tuple(tie('tree'), tie('tree')).map(([a, b]) => a + b),
      fc.tuple(tie('tree'), tie('tree')).map(([a, b]) => `(${a}|${b})`),
      fc
        .tuple(tie('tree'), fc.constantFrom('*', '+', '?', '{2}', '{0,2}', '{1,}'))
        .map(([a, times]) => `(${a})${times}`),
    ),
  }))
  fc.assert(
    fc.property(tree, fc.array(fc.constantFrom('a', 'b', '1', ' '), { maxLength: 8 }), (pattern, letters) => {
      const text = letters.join('')
      assert.equal(
        compileRegularExpression(pattern)(text),
        new RegExp(pattern, 'u').test(text),
        `${pattern} on ${text}`,
      )
    }),
    { numRuns: 2000 },
  )
})
