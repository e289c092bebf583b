import { faultAtEnd, faultText, findFault } from './json-text.ts'
import type { MountRequest } from '../image-requests.ts'
import { LOG_LEVELS, type LogLevel } from '../log.ts'

/** A body that cannot be used; `wire` is the text of the answer. */
export class BodyError extends Error {
  override readonly name = 'BodyError'
  readonly wire: string

  constructor(wire: string) {
    super(wire)
    this.wire = wire
  }
}

type Fields = Readonly<Record<string, unknown>>

/** `{"source":…,"fs_type":…,"config":"…","prefetch_files":[…]}`. Throws BodyError. */
export function parseMountRequest(text: string): MountRequest {
  const fields = parseObject(text)
  return {
    source: stringField(fields, 'source', text),
    fs_type: fields['fs_type'] === undefined ? '' : stringField(fields, 'fs_type', text),
    config: stringField(fields, 'config', text),
    prefetch_files: listField(fields, 'prefetch_files', text),
  }
}

/** `{"log_level":"info"}`, in any letter case; undefined = no such level. Throws BodyError. */
export function parseLogLevel(text: string): LogLevel | undefined {
  const wanted = stringField(parseObject(text), 'log_level', text).toLowerCase()
  return LOG_LEVELS.find((level) => level === wanted)
}

/** An object of strings. Throws BodyError. */
export function parseStrings(text: string): ReadonlyMap<string, string> {
  const fields = parseObject(text)
  return new Map(Object.keys(fields).map((key) => [key, stringField(fields, key, text)]))
}

function parseObject(text: string): Fields {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw new BodyError(faultText(findFault(text))) // says better what is wrong than the engine does
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BodyError(faultText(faultAtEnd(`invalid type: ${shown(value)}, expected a map`, text)))
  return value as Fields // an object and no array: its members are checked one by one
}

function stringField(fields: Fields, name: string, text: string): string {
  const value = fields[name]
  if (typeof value === 'string') return value
  if (value === undefined) throw new BodyError(faultText(faultAtEnd(`missing field \`${name}\``, text)))
  throw wrongType(value, 'a string', name, text)
}

function listField(fields: Fields, name: string, text: string): readonly string[] | null {
  const value = fields[name]
  if (value === undefined || value === null) return null
  if (!Array.isArray(value)) throw wrongType(value, 'a sequence', name, text)
  for (const item of value) if (typeof item !== 'string') throw wrongType(item, 'a string', name, text)
  return value as string[] // each was tested on the line above
}

/** The column is where the value ends. */
function wrongType(value: unknown, wanted: string, name: string, text: string): BodyError {
  const key = text.lastIndexOf(JSON.stringify(name))
  const literal = JSON.stringify(value)
  const found = text.indexOf(literal, key < 0 ? 0 : key + name.length + 2)
  const end = found < 0 ? text.length : found + literal.length
  return new BodyError(faultText(faultAtEnd(`invalid type: ${shown(value)}, expected ${wanted}`, text.slice(0, end))))
}

function shown(value: unknown): string {
  if (typeof value === 'number') return `${Number.isInteger(value) ? 'integer' : 'floating point'} \`${value}\``
  if (typeof value === 'boolean') return `boolean \`${value}\``
  if (typeof value === 'string') return `string ${JSON.stringify(value)}`
  if (value === null) return 'null'
  return Array.isArray(value) ? 'sequence' : 'map'
}
