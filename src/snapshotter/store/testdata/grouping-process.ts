/** For a test that kills it: many clients at once, each of which makes, commits and removes a snapshot over and over, and says so when that is on the disk. Arguments: root, clients. */
import { writeSync } from 'node:fs'
import { SnapshotStore } from '../snapshot-store.ts'

const [root = '', clients = '1'] = process.argv.slice(2)
const store = SnapshotStore.open(root)
for (const { key } of store.list([])) store.remove(key)
// The log has room from then on.
await store.flush()
void store.makeAhead(new AbortController().signal)
const labels = new Map([['label', 'x'.repeat(300)]])

async function done(client: number, step: string, act: () => void): Promise<void> {
  const { losses } = store
  act()
  await store.flush(losses)
  writeSync(1, `${client} ${step}\n`)
}

async function run(client: number): Promise<void> {
  const [key, name] = [`${client} active`, `${client} committed`]
  for (;;) {
    await done(client, 'active', () => store.create('active', key, '', labels))
    await done(client, 'committed', () => store.commit(name, key, labels, undefined))
    await done(client, 'none', () => store.remove(name))
  }
}

await Promise.all(Array.from({ length: Number(clients) }, async (_unused, client) => await run(client)))
