/** The pages of nydusd have every key that a configuration takes, every call that the API answers and every name that Prometheus reads; and none that is not there. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ROUTES } from '../src/daemon/api/routes.ts'
import { ConfigV2 } from '../src/daemon/config/schema.ts'
import { ConfigV1 } from '../src/daemon/config/v1.ts'

const read = (path: string): string => readFileSync(join(import.meta.dirname, '..', path), 'utf8')
const CONFIGURATION = read('docs/configuration.md')
const NYDUSD = read('docs/nydusd.md')

/** What of a schema tells its keys; the library's own types have a form for each kind. */
interface Shape {
  readonly type: string
  readonly entries?: Readonly<Record<string, unknown>>
  readonly wrapped?: unknown
  readonly item?: unknown
  readonly options?: readonly unknown[]
  readonly default?: unknown
}

/** Paths of all keys of a schema that are no tables: `cache.filecache.work_dir`. */
function keysOf(schema: unknown, path = ''): string[] {
  const { type, entries, wrapped, item, options = [] } = schema as Shape // a schema, or a part of one that is a schema
  if (wrapped !== undefined) return keysOf(wrapped, path)
  if (item !== undefined) return keysOf(item, path)
  if (type === 'variant' || type === 'union') return [...new Set(options.flatMap((option) => keysOf(option, path)))]
  if (entries === undefined) return [path]
  return Object.entries(entries).flatMap(([key, below]) => keysOf(below, path === '' ? key : `${path}.${key}`))
}

/** Text under a heading, up to the next one of any level. */
function section(page: string, heading: string): string {
  const [, after] = page.split(new RegExp(`^#+ ${heading}\n`, 'm'))
  assert.ok(after !== undefined, `there is no section "${heading}"`)
  return after.split(/^#+ /m)[0] ?? ''
}

/** Names in the first column of the tables of a text; a row's later names have the table of its first one: `a.b`, `c` is a.b and a.c. */
function namesIn(text: string): string[] {
  return text.split('\n').flatMap((line) => {
    const cell = line.startsWith('| `') ? (line.split(/(?<!\\)\|/)[1] ?? '') : ''
    const [first = '', ...others] = [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name)
    if (first === '') return []
    const table = first.slice(0, first.lastIndexOf('.') + 1)
    return [first, ...others.map((name) => (name.includes('.') ? name.replace(/^\./, table) : table + name))]
  })
}

test('configuration.md has every key of version 2', () => {
  const told = new Set(namesIn(section(CONFIGURATION, 'Version 2')))
  const proxy = new Set(namesIn(section(CONFIGURATION, 'Proxies')))
  const external = section(CONFIGURATION, '`external_backends`')
  const untold = keysOf(ConfigV2).filter((key) => {
    const [, type = '', name = ''] = /^backend\.([^.]+)\.(.+)$/.exec(key) ?? []
    if (name === '')
      return key.startsWith('external_backends.')
        ? !external.includes(`\`${key.slice(key.indexOf('.') + 1)}\``)
        : !told.has(key) && !told.has(key.slice(0, key.lastIndexOf('.')))
    const of = section(
      CONFIGURATION,
      type === 's3' || type === 'oss' ? '`backend.s3` and `backend.oss`' : `\`backend.${type}\``,
    )
    if (name.startsWith('proxy.')) return !namesIn(of).includes('proxy.…') || !proxy.has(name.slice('proxy.'.length))
    if (name.startsWith('mirrors.')) return !of.includes(`\`${name.slice('mirrors.'.length)}\``)
    return !namesIn(of).includes(name)
  })
  assert.deepEqual(untold, [])
})

/** What a key is that is left out; undefined where it must be there, or is nothing then. */
function defaultOf(schema: unknown, path: readonly string[]): unknown {
  const { type, entries, wrapped, default: fallback } = schema as Shape
  const [key, ...below] = path
  if (key === undefined) return type === 'optional' ? fallback : undefined
  return entries === undefined ? defaultOf(wrapped, path) : defaultOf(entries[key], below)
}

/** Headers have a table too. */
function isKey(name: string): boolean {
  return !name.startsWith('X-')
}

/** What the second column of a table means; undefined for words. */
function valueIn(cell: string): unknown {
  if (cell === '1 MiB') return 1 << 20
  const [, text] = /^`(.*)`$/.exec(cell) ?? [undefined, cell]
  return /^(?:true|false|\d+|\[\]|".*")$/.test(text) ? JSON.parse(text) : undefined
}

test('configuration.md has the defaults that documents get', () => {
  const places: ReadonlyArray<readonly [heading: string, table: string]> = [
    ['Version 2', ''],
    ['`backend.s3` and `backend.oss`', 'backend.s3.'],
    ['Proxies', 'backend.registry.proxy.'],
    ...['localfs', 'registry', 'http-proxy', 'localdisk'].map(
      (type) => [`\`backend.${type}\``, `backend.${type}.`] as const,
    ),
  ]
  let told = 0
  for (const [heading, table] of places)
    for (const row of section(CONFIGURATION, heading).split('\n')) {
      const value = valueIn(row.split(/(?<!\\)\|/)[2]?.trim() ?? '')
      if (value === undefined) continue
      for (const name of namesIn(row).filter(isKey)) {
        told += 1
        assert.deepEqual(value, defaultOf(ConfigV2, `${table}${name}`.split('.')), `${table}${name}`)
      }
    }
  assert.ok(told > 40, `${told} defaults`)
})

test('configuration.md has every key of version 1', () => {
  const told = new Set(namesIn(section(CONFIGURATION, 'Version 1')))
  const untold = keysOf(ConfigV1).filter((key) => {
    const parts = key.split('.')
    return !parts.some((_part, index) => told.has(parts.slice(0, index + 1).join('.')))
  })
  assert.deepEqual(untold, [])
})

test('configuration.md has no key that no document takes', () => {
  const known = new Set(
    [...keysOf(ConfigV2), ...keysOf(ConfigV1)].flatMap((key) => {
      const parts = key.split('.')
      return parts.flatMap((_part, index) =>
        parts.slice(index).map((_name, end) => parts.slice(index, index + end + 1).join('.')),
      )
    }),
  )
  const [keys = ''] = CONFIGURATION.split('## Blob cache entries')
  const wrong = namesIn(keys).filter((name) => !known.has(name) && !/[…<]/.test(name) && isKey(name))
  assert.deepEqual(wrong, [])
})

test('nydusd.md has every call of the API, and no other', () => {
  const told = [...section(NYDUSD, 'API').matchAll(/^\| (.*?) \|/gm)].flatMap(([, cell = '']) => callsIn(cell))
  const answered = ROUTES.map(({ method, path }) => `${method} ${path}`)
  assert.deepEqual(told.sort(), answered.sort())
})

/** Calls that a cell of the table has: `GET`, `PUT /a`; `GET /a`, `…/b`, where the ellipsis stands for the path before it. */
function callsIn(cell: string): string[] {
  let methods: string[] = []
  let path = ''
  return [...cell.matchAll(/`([^`]+)`/g)].flatMap(([, text = '']) => {
    const [, method, place] = /^(?:([A-Z]+) ?)?(?:(\S+))?$/.exec(text) ?? []
    if (method !== undefined) methods = path === '' ? [...methods, method] : [method]
    if (place === undefined) return []
    const bare = place.replace(/\?.*/, '')
    path = bare.startsWith('…') ? path.slice(0, path.lastIndexOf('/')) + bare.slice(1) : bare
    return methods.map((one) => `${one} ${path}`)
  })
}

test('nydusd.md has every name that Prometheus reads, and no other', () => {
  const told = [...section(NYDUSD, 'Prometheus').matchAll(/`((?:nydusd|process)_\w+)/g)].map(([, name = '']) => name)
  const given = [...read('src/daemon/api/prometheus.ts').matchAll(/\b((?:nydusd|process)_\w+)/g)].map(
    ([, name = '']) => name,
  )
  assert.deepEqual([...new Set(told)].sort(), [...new Set(given)].sort())
})
