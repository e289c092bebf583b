import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commandLine } from './launch.ts'
import { configPath, newDaemon, nextSocket, sessionPath } from './places.ts'
import { newDaemonId } from './records.ts'
import type { DaemonSettings } from './settings.ts'

const SETTINGS: DaemonSettings = {
  root: '/r',
  daemonMode: 'dedicated',
  cleanupOnClose: false,
  system: { cpuProfileSeconds: 0 },
  daemon: {
    nydusdPath: '/bin/nydusd',
    configPath: '/etc/nydusd.json',
    recoverPolicy: 'failover',
    threads: 8,
    logRotationMib: 100,
    failoverPolicy: 'resend',
    startupTimeoutMs: 30_000,
    hangTimeoutMs: 60_000,
  },
  cgroup: { enable: false, memoryLimitBytes: Number.POSITIVE_INFINITY },
  log: { toStdout: false, level: 'info', dir: '/r/logs' },
  cache: { dir: '/r/cache', quotaBytes: Number.POSITIVE_INFINITY },
  image: { publicKeyFile: '', validateSignature: false },
}

test('a dedicated daemon is started as upstream starts it, with everything set', () => {
  const record = newDaemon(SETTINGS, { id: 'x', mode: 'dedicated', mountpoint: '/r/snapshots/1/mnt' })
  const image = { bootstrap: '/b', config: configPath(record, '1'), prefetchList: '/p' }
  const line =
    'fuse --upgrade --thread-num 8 --id x --config /r/config/x/config.json --bootstrap /b --mountpoint /r/snapshots/1/mnt --apisock /r/socket/x/api.sock --log-level info --log-rotation-size 100 --supervisor /r/supervisor/x.sock --log-file /r/logs/x/nydusd.log --prefetch-files /p --failover-policy resend'
  assert.equal(commandLine(record, { image, isUpgrade: true }).join(' '), line)
})

test('a shared daemon gets no image, no supervisor where the policy needs none, and no log file beside stdout', () => {
  const daemon = { ...SETTINGS.daemon, recoverPolicy: 'restart', threads: 0, logRotationMib: 0 } as const
  const settings = { ...SETTINGS, daemon, log: { ...SETTINGS.log, toStdout: true } }
  const record = newDaemon(settings, { id: 'x', mode: 'shared', mountpoint: '/r/mnt' })
  const line = 'fuse --mountpoint /r/mnt --apisock /r/socket/x/api.sock --log-level info --failover-policy resend'
  assert.equal(commandLine(record, { image: undefined, isUpgrade: false }).join(' '), line)
  assert.equal(configPath(record, '7'), '/r/config/x/7/config.json')
  assert.deepEqual([sessionPath(record, '7'), sessionPath({ ...record, DaemonMode: 'dedicated' }, '7')], ['/7', '/'])
})

test('sockets are counted up', () => {
  const paths = ['/s/api.sock', '/s/api1.sock', '/s/api9.sock', '/s/odd'].map(nextSocket)
  assert.deepEqual(paths, ['/s/api1.sock', '/s/api2.sock', '/s/api10.sock', '/s/api1.sock'])
})

test('names of daemons have upstream’s form, and differ', () => {
  const names = Array.from({ length: 1000 }, newDaemonId)
  assert.equal(new Set(names).size, 1000)
  for (const name of names) assert.match(name, /^[0-9a-v]{20}$/)
})
