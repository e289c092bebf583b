import { readFile } from 'node:fs/promises'
import { SnapshotterError } from '../errors.ts'
import {
  ConfigTemplate,
  type Credential,
  readConfig,
  type WrittenLogin,
  writePrivately,
  writtenLogin,
} from './config-template.ts'
import type { DaemonImage, Nydusd } from './daemon.ts'
import { messageOf } from './message.ts'
import { configPath, sessionPath } from './places.ts'

/** Puts another login into an image's configuration, for daemons to come, and tells it to the one that serves. Throws SnapshotterError. */
export async function pushLogin(daemon: Nydusd, image: DaemonImage, credential: Credential): Promise<void> {
  await daemon.loginTurns.take(async () => await push(daemon, image, credential))
}

async function push(daemon: Nydusd, image: DaemonImage, credential: Credential): Promise<void> {
  const { SnapshotID: key } = image.record
  const path = configPath(daemon.record, key)
  const document = await readConfig(path)
  if (!ConfigTemplate.relogin(document, credential)) return
  await writePrivately(path, JSON.stringify(document))
  if (daemon.state !== 'running' || !image.isMounted) return
  await tell(daemon, image, writtenLogin(credential))
  await daemon.sessions.save()
}

/** A state may have been saved with a login that is out of date: what configurations have is told again after each takeover. Never throws. */
export async function tellLogins(daemon: Nydusd): Promise<void> {
  await daemon.loginTurns.take(async () => {
    for (const image of daemon.images.values()) await tellAgain(daemon, image)
  })
}

/** An image's configuration, whose text is to be given to {@link tellRenewed} once a daemon that read it serves the image. */
export async function configText(daemon: Nydusd, image: DaemonImage): Promise<string> {
  return await readFile(configPath(daemon.record, image.record.SnapshotID), 'utf8')
}

/** A login that is renewed while nobody serves the image is only written down: who had read the configuration before is told now. Never throws. */
export async function tellRenewed(daemon: Nydusd, image: DaemonImage, before: string): Promise<void> {
  await daemon.loginTurns.take(async () => {
    const isRenewed = await configText(daemon, image).then(
      (now) => now !== before,
      () => true, // told by name then
    )
    if (isRenewed) await tellAgain(daemon, image)
  })
}

async function tellAgain(daemon: Nydusd, image: DaemonImage): Promise<void> {
  try {
    const login = ConfigTemplate.loginIn(await readConfig(configPath(daemon.record, image.record.SnapshotID)))
    if (image.isMounted && login !== undefined) await tell(daemon, image, login)
  } catch (error) {
    daemon.parts.log.warn(
      `the login of ${image.record.ImageID} is not told to nydusd ${daemon.id}: ${messageOf(error)}`,
    )
  }
}

/** The original's nydusd takes no tokens while it serves: they reach it when it starts the next time. */
async function tell(daemon: Nydusd, { record }: DaemonImage, login: WrittenLogin): Promise<void> {
  try {
    await daemon.api.setLogin(sessionPath(daemon.record, record.SnapshotID), login)
  } catch (error) {
    const isRefusal = error instanceof SnapshotterError && error.code === 'INTERNAL'
    if (!isRefusal || !('token' in login)) throw error
    daemon.parts.log.debug(
      `the token of ${record.ImageID} reaches nydusd ${daemon.id} at its next start: ${messageOf(error)}`,
    )
  }
}
