/**
 * JSON as the original tools write it: members in the order of their structs, maps sorted, what is empty left out. Digests of manifests and configs
 * depend on it. Members that those structs do not know follow at the end, where the original would lose them.
 */
type JsonObject = Readonly<Record<string, unknown>>

/** How one object is written: its members in order; `always` are written also when empty, `maps` are sorted by key, `parts` have a form of their own. */
interface Form {
  readonly members: readonly string[]
  readonly always: ReadonlySet<string>
  readonly maps: ReadonlySet<string>
  readonly parts: ReadonlyMap<string, Form>
}

function form(
  members: readonly string[],
  more: { always?: readonly string[]; maps?: readonly string[]; parts?: Readonly<Record<string, Form>> } = {},
): Form {
  return {
    members,
    always: new Set(more.always),
    maps: new Set(more.maps),
    parts: new Map(Object.entries(more.parts ?? {})),
  }
}

/** Source of all member orders: the structs of the OCI image specification, `specs-go/v1` (1.1). */
const PLATFORM = form(['architecture', 'os', 'os.version', 'os.features', 'variant'], {
  always: ['architecture', 'os'],
})
const DESCRIPTOR = form(['mediaType', 'digest', 'size', 'urls', 'annotations', 'data', 'platform', 'artifactType'], {
  always: ['mediaType', 'digest', 'size'],
  maps: ['annotations'],
  parts: { platform: PLATFORM },
})
const MANIFEST = form(['schemaVersion', 'mediaType', 'artifactType', 'config', 'layers', 'subject', 'annotations'], {
  always: ['schemaVersion', 'config', 'layers'],
  maps: ['annotations'],
  parts: { config: DESCRIPTOR, layers: DESCRIPTOR, subject: DESCRIPTOR },
})
const INDEX = form(['schemaVersion', 'mediaType', 'artifactType', 'manifests', 'subject', 'annotations'], {
  always: ['schemaVersion', 'manifests'],
  maps: ['annotations'],
  parts: { manifests: DESCRIPTOR, subject: DESCRIPTOR },
})
const RUN_CONFIG = form(
  ['User', 'ExposedPorts', 'Env', 'Entrypoint', 'Cmd', 'Volumes', 'WorkingDir', 'Labels', 'StopSignal', 'ArgsEscaped'],
  { maps: ['ExposedPorts', 'Volumes', 'Labels'] },
)
const IMAGE_CONFIG = form(
  ['created', 'author', 'architecture', 'os', 'os.version', 'os.features', 'variant', 'config', 'rootfs', 'history'],
  {
    always: ['architecture', 'os', 'config', 'rootfs'],
    parts: {
      config: RUN_CONFIG,
      rootfs: form(['type', 'diff_ids'], { always: ['type', 'diff_ids'] }),
      history: form(['created', 'created_by', 'author', 'comment', 'empty_layer']),
    },
  },
)

/** What can be written. */
export type DocumentKind = 'manifest' | 'index' | 'config' | 'run-config'
const FORMS: Readonly<Record<DocumentKind, Form>> = {
  manifest: MANIFEST,
  index: INDEX,
  config: IMAGE_CONFIG,
  'run-config': RUN_CONFIG,
}

/** `indented`: by two spaces, as the original writes manifests; `compact`: as it writes configs. */
export function goJson(kind: DocumentKind, document: object, layout: 'indented' | 'compact'): Uint8Array {
  const text = JSON.stringify(ordered(document as JsonObject, FORMS[kind]), undefined, layout === 'indented' ? 2 : 0)
  return Buffer.from(escapeForHtml(text), 'utf8')
}

function ordered(value: JsonObject, by: Form): JsonObject {
  const written: Array<readonly [string, unknown]> = []
  for (const name of by.members) {
    const member = value[name]
    if (by.always.has(name) ? member !== undefined : !isEmpty(member)) written.push([name, formed(name, member, by)])
  }
  for (const [name, member] of Object.entries(value))
    if (!by.members.includes(name) && member !== undefined) written.push([name, member])
  return Object.fromEntries(written)
}

function formed(name: string, member: unknown, by: Form): unknown {
  if (by.maps.has(name) && isObject(member)) return sorted(member)
  const part = by.parts.get(name)
  if (part === undefined) return member
  if (Array.isArray(member)) return member.map((item: unknown) => (isObject(item) ? ordered(item, part) : item))
  return isObject(member) ? ordered(member, part) : member
}

/** Go sorts maps by the bytes of their keys. */
function sorted(map: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(map).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === '' || value === false || value === 0) return true
  return Array.isArray(value) ? value.length === 0 : isObject(value) && Object.keys(value).length === 0
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Go writes these characters as escapes wherever they stand; outside of strings JSON has none of them. */
const ESCAPED: Readonly<Record<string, string>> = {
  '<': '\\u003c',
  '>': '\\u003e',
  '&': '\\u0026',
  '\u2028': '\\u2028',
  '\u2029': '\\u2029',
}

function escapeForHtml(json: string): string {
  return json.replace(/[<>&\u2028\u2029]/g, (character) => ESCAPED[character] ?? character)
}
