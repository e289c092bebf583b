import { ConfigTemplate, type Credential, loginOf, readConfig, writePrivately } from './config-template.ts'
import type { DaemonImage, Nydusd } from './daemon.ts'
import { messageOf } from './message.ts'
import { configPath, sessionPath } from './places.ts'

/** Puts another login into an image's configuration, for daemons to come, and tells it to the one that serves. Throws SnapshotterError. */
export async function pushLogin(daemon: Nydusd, image: DaemonImage, credential: Credential): Promise<void> {
  const { SnapshotID: key } = image.record
  const path = configPath(daemon.record, key)
  const document = await readConfig(path)
  if (!ConfigTemplate.relogin(document, credential)) return
  await writePrivately(path, JSON.stringify(document))
  const login = loginOf(credential)
  // a token reaches those that start from now on: nydusd takes only logins while it serves
  if (login === undefined || daemon.state !== 'running' || !image.isMounted) return
  await daemon.api.setLogin(sessionPath(daemon.record, key), login)
  await daemon.sessions.save()
}

/** A state may have been saved with a login that is out of date: what configurations have is told again after each takeover. Never throws. */
export async function tellLogins(daemon: Nydusd): Promise<void> {
  for (const { record, isMounted } of daemon.images.values())
    try {
      const login = ConfigTemplate.loginIn(await readConfig(configPath(daemon.record, record.SnapshotID)))
      if (isMounted && login !== undefined)
        await daemon.api.setLogin(sessionPath(daemon.record, record.SnapshotID), login)
    } catch (error) {
      daemon.parts.log.warn(`the login of ${record.ImageID} is not told to nydusd ${daemon.id}: ${messageOf(error)}`)
    }
}
