/** Compares a mounted tree in a process of its own, for tests whose own process serves the data: `compare-tree.ts MOUNT TREE` prints the differences as JSON. */
import { treeDifferences } from '../testing.ts'

const [, , at = '', tree = ''] = process.argv
process.stdout.write(JSON.stringify(treeDifferences(at, tree)))
