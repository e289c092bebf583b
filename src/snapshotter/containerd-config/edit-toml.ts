import { isDeepStrictEqual } from 'node:util'
import { parse as parseToml, TomlError } from 'smol-toml'
import { SnapshotterError } from '../errors.ts'
import { outlineToml, type Statement } from '../settings/index.ts'

export type TomlScalar = string | boolean | number | readonly string[]

/** A key that shall have a value. */
export interface Setting {
  readonly path: readonly string[]
  readonly value: TomlScalar
}

/** An element at the end of an array of tables. */
export interface Element {
  readonly array: readonly string[]
  readonly element: Readonly<Record<string, string>>
}

export type Edit = Setting | Element

type Table = Record<string, unknown>

const INDENT = '  '

/**
 * A TOML document with some keys changed or added; all else stays as it was written: comments, order, blanks. What the result says is compared with what it must say.
 * Throws SnapshotterError 'BAD_CONFIG' for what is no TOML, and for keys that cannot be reached so (in inline tables): `name` says which file.
 */
export function editToml(text: string, edits: readonly Edit[], name: string): string {
  const wanted = parsedToml(text, name)
  let edited = text
  for (const edit of edits) {
    if ('array' in edit) {
      edited = withElement(edited, edit)
      addElement(wanted, edit)
    } else {
      edited = withSetting(edited, edit, name)
      setValue(wanted, edit)
    }
  }
  if (!isDeepStrictEqual(plain(parsedToml(edited, name)), plain(wanted)))
    throw new SnapshotterError(
      'BAD_CONFIG',
      `cannot edit ${name} without changing what it says elsewhere; write by hand:\n${edits.map(snippet).join('\n')}`,
    )
  return edited
}

/** The document without a key, and without its table when nothing is left of it; the same text when the key is not there. */
export function withoutKey(text: string, path: readonly string[]): string {
  const statements = outlineToml(text)
  const found = statements.find((one) => one.kind === 'key' && samePath(one.path, path))
  if (found === undefined) return text
  const without = cutLines(text, found)
  const table = path.slice(0, -1)
  const rest = outlineToml(without)
  const header = rest.find((one) => one.kind === 'table' && samePath(one.path, table))
  const isEmpty = !rest.some(
    (one) => one.path.length > table.length && samePath(one.path.slice(0, table.length), table),
  )
  return header !== undefined && isEmpty ? cutLines(without, header) : without
}

/** The document without the elements of an array of tables that say exactly this. */
export function withoutElement(text: string, { array, element }: Element): string {
  const at = elementsOf(parsedToml(text, 'the document'), array).findIndex((one) =>
    isDeepStrictEqual(plain(one), element),
  )
  if (at < 0) return text
  const statements = outlineToml(text)
  const isPart = ({ path }: Statement): boolean => samePath(path.slice(0, array.length + 1), [...array, at])
  return statements
    .filter(isPart)
    .reverse()
    .reduce((rest, statement) => cutLines(rest, statement), text)
}

/** What a person would paste. */
export function snippet(edit: Edit): string {
  if ('array' in edit)
    return `[[${header(edit.array)}]]\n${Object.entries(edit.element)
      .map(([key, value]) => `${INDENT}${key} = ${JSON.stringify(value)}`)
      .join('\n')}`
  const table = edit.path.slice(0, -1)
  const line = `${keyText(edit.path.at(-1) ?? '')} = ${valueText(edit.value)}`
  return table.length === 0 ? line : `[${header(table)}]\n${INDENT}${line}`
}

/** Throws SnapshotterError 'BAD_CONFIG', with file, line and column. */
export function parsedToml(text: string, name: string): Table {
  try {
    return parseToml(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const [what = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n')
    throw new SnapshotterError(
      'BAD_CONFIG',
      `cannot use ${name}, line ${error.line}, column ${error.column}: it is no TOML: ${what}`,
      {
        cause: error,
      },
    )
  }
}

/** What a path leads to; undefined where there is nothing. */
export function valueAt(table: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((at, key) => (isTable(at) && Object.hasOwn(at, key) ? at[key] : undefined), table)
}

export function elementsOf(table: unknown, path: readonly string[]): readonly unknown[] {
  const found = valueAt(table, path)
  return Array.isArray(found) ? found : []
}

export function isTable(value: unknown): value is Table {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date)
}

function withSetting(text: string, { path, value }: Setting, name: string): string {
  const statements = outlineToml(text)
  const keys = statements.filter(({ kind }) => kind === 'key')
  const known = keys.find((one) => samePath(one.path, path))
  if (known !== undefined) return text.slice(0, known.valueStart) + valueText(value) + text.slice(known.end)
  const inline = keys.find((one) => one.path.length < path.length && samePath(path.slice(0, one.path.length), one.path))
  if (inline !== undefined)
    throw new SnapshotterError(
      'BAD_CONFIG',
      `cannot edit ${name}, line ${inline.line}: ${header(inline.path.map(String))} is an inline table; write it as [${header(inline.path.map(String))}] first`,
    )
  const table = path.slice(0, -1)
  const line = `${keyText(path.at(-1) ?? '')} = ${valueText(value)}`
  const at = statements.findIndex((one) => one.kind === 'table' && samePath(one.path, table))
  if (table.length === 0) return insertedFirst(text, statements, line)
  if (at < 0) return appended(text, `[${header(table)}]\n${INDENT}${line}\n`)
  const next = statements.findIndex((one, index) => index > at && one.kind !== 'key')
  const own = statements.slice(at, next < 0 ? undefined : next)
  const last = own.at(-1)
  if (last === undefined) return text
  const indent = own.length > 1 ? indentOf(text, own[1]?.start ?? 0) : indentOf(text, last.start) + INDENT
  return insertedAfterLine(text, last.end, indent + line)
}

/** A key of the root stands before all tables. */
function insertedFirst(text: string, statements: readonly Statement[], line: string): string {
  const firstTable = statements.findIndex((one) => one.kind !== 'key')
  const last = statements.slice(0, firstTable < 0 ? undefined : firstTable).at(-1)
  return last === undefined ? `${line}\n${text}` : insertedAfterLine(text, last.end, line)
}

function withElement(text: string, edit: Element): string {
  return appended(text, `${snippet(edit)}\n`)
}

function appended(text: string, block: string): string {
  const end = text === '' || text.endsWith('\n') ? '' : '\n'
  return `${text}${end}${text === '' ? '' : '\n'}${block}`
}

function insertedAfterLine(text: string, offset: number, line: string): string {
  const end = text.indexOf('\n', offset)
  return end < 0 ? `${text}\n${line}\n` : `${text.slice(0, end + 1)}${line}\n${text.slice(end + 1)}`
}

/** All lines of a statement, with the comment behind it; and one of two blank lines that then meet. */
function cutLines(text: string, { start, end }: Statement): string {
  const from = text.lastIndexOf('\n', start - 1) + 1
  const newline = text.indexOf('\n', end)
  const before = text.slice(0, from)
  const after = newline < 0 ? '' : text.slice(newline + 1)
  const areBlank = (before === '' || before.endsWith('\n\n')) && (after === '' || after.startsWith('\n'))
  if (!areBlank) return before + after
  return after === '' ? before.replace(/\n$/, '') : before + after.slice(1)
}

function indentOf(text: string, start: number): string {
  return /^[ \t]*/.exec(text.slice(text.lastIndexOf('\n', start - 1) + 1, start))?.[0] ?? ''
}

function samePath(a: ReadonlyArray<string | number>, b: ReadonlyArray<string | number>): boolean {
  return a.length === b.length && a.every((part, index) => part === b[index])
}

function header(path: readonly string[]): string {
  return path.map(keyText).join('.')
}

function keyText(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key)
}

function valueText(value: TomlScalar): string {
  return typeof value === 'object' ? `[${value.map((one) => JSON.stringify(one)).join(', ')}]` : JSON.stringify(value)
}

function setValue(table: Table, { path, value }: Setting): void {
  const last = path.at(-1) ?? ''
  tableAt(table, path.slice(0, -1))[last] = value
}

function addElement(table: Table, { array, element }: Element): void {
  const owner = tableAt(table, array.slice(0, -1))
  const last = array.at(-1) ?? ''
  const known = owner[last]
  owner[last] = [...(Array.isArray(known) ? known : []), element]
}

function tableAt(table: Table, path: readonly string[]): Table {
  let at = table
  for (const key of path) {
    const known = at[key]
    const next = isTable(known) ? known : {}
    at[key] = next
    at = next
  }
  return at
}

/** Tables of the parser have no prototype, ours have one: compared as data. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain)
  return isTable(value) ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)])) : value
}
