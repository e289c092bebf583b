/**
 * The layer rule, enforced: a room imports only from rooms on lower floors, and only through their doors (`index.ts`).
 * Prints every breach and exits 1. The floors are those of ARCHITECTURE.md.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'

const FLOORS: Readonly<Record<string, number>> = {
  kernel: 0,
  codec: 0,
  tar: 0,
  dragonfly: 0,
  blob: 1,
  registry: 1,
  containerd: 1,
  rafs: 1,
  backend: 2,
  cache: 2,
  engine: 3,
  builder: 3,
  daemon: 4,
  convert: 4,
  snapshotter: 4,
  integrations: 4,
  cli: 5,
}
/** Edges inside one floor that ARCHITECTURE.md lists. */
const SIDEWAYS: ReadonlySet<string> = new Set(['rafs>blob', 'codec>kernel'])

const src = join(import.meta.dirname, '../src')
const breaches: string[] = []
for (const path of readdirSync(src, { recursive: true, encoding: 'utf8' })) {
  if (!path.endsWith('.ts')) continue
  const room = path.split('/')[0] ?? ''
  const text = readFileSync(join(src, path), 'utf8')
  for (const match of text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']+)'/g)) {
    const target = relative(src, normalize(join(src, dirname(path), match[1] ?? '')))
    if (target === '../package.json') continue // the version
    if (target.startsWith('..')) {
      breaches.push(`${path}: imports ${target}, which is outside src/`)
      continue
    }
    const other = target.split('/')[0] ?? ''
    if (other === room) continue
    const isTest = path.endsWith('.test.ts')
    const down = (FLOORS[other] ?? 99) < (FLOORS[room] ?? -1) || SIDEWAYS.has(`${room}>${other}`)
    if (!down && !isTest)
      breaches.push(`${path}: ${room} (floor ${FLOORS[room]}) may not import ${other} (floor ${FLOORS[other]})`)
    const door = target === `${other}/index.ts` || /^[^/]+\/[^/]+\/index\.ts$/.test(target)
    if (!door) breaches.push(`${path}: imports ${target} past the door ${other}/index.ts`)
  }
}
for (const breach of breaches) console.error(breach)
console.log(breaches.length === 0 ? 'layers: in order' : `layers: ${breaches.length} breaches`)
process.exitCode = breaches.length === 0 ? 0 : 1
