/** For a test that kills it: works on the store of a root, and says what is done. Arguments: root, seed. */
import { writeSync } from 'node:fs'
import { SnapshotStore } from '../snapshot-store.ts'
import { apply, operation } from './operations.ts'

const [root = '', seed = '0'] = process.argv.slice(2)
const store = SnapshotStore.open(root)
writeSync(1, 'open\n')
for (let step = 0; ; step += 1) {
  apply(store, operation(Number(seed), step))
  writeSync(1, `${step}\n`)
}
