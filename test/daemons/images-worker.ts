/** A snapshotter's daemons in a process of their own, for tests that kill it. Mounts every committed snapshot that there is. */
import { SnapshotStore } from '../../src/snapshotter/store/index.ts'
import { type DaemonSettings, Images } from '../../src/snapshotter/daemons/index.ts'

const settings = JSON.parse(process.argv[2] ?? '') as DaemonSettings
const store = SnapshotStore.open(settings.root)
const silent = (): void => undefined
const images = await Images.start({
  settings,
  records: { daemons: store.records('daemons'), instances: store.records('instances') },
  credentials: { find: async () => undefined },
  isThere: () => true,
  log: { error: console.error, warn: silent, info: silent, debug: silent },
})
for (const snapshot of store.list(['kind==committed'])) {
  const request = { snapshot, directory: store.directory(snapshot), reference: '', labels: snapshot.labels }
  await images.ensure(request, AbortSignal.timeout(60_000))
}
process.send?.('started')
setInterval(silent, 1000)
