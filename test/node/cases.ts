import type { NodeCase } from './case.ts'
import { CTR_CASES } from './cases/ctr.ts'
import { DEATH_CASES } from './cases/deaths.ts'
import { STATE_CASES } from './cases/given-back.ts'
import { DOCKER_CASES } from './cases/docker.ts'
import { DOCKER_BUILD_CASES } from './cases/docker-build.ts'
import { FOUND_CASES } from './cases/found.ts'
import { LOGIN_CASES } from './cases/logins.ts'
import { MANY_CASES } from './cases/many.ts'
import { NODEV_CASES } from './cases/nodev.ts'
import { OWN_IMAGE_CASES } from './cases/own-image.ts'
import { POD_CASES } from './cases/pod.ts'
import { REBOOT_CASES } from './cases/reboot.ts'
import { SHOWN_CASES } from './cases/shown.ts'
import { USER_CASES } from './cases/users.ts'

/** All of them, in the order in which they run. */
export const CASES: readonly NodeCase[] = [
  ...POD_CASES,
  ...CTR_CASES,
  ...DOCKER_CASES,
  ...DOCKER_BUILD_CASES,
  ...FOUND_CASES,
  ...LOGIN_CASES,
  ...NODEV_CASES,
  ...OWN_IMAGE_CASES,
  ...MANY_CASES,
  ...USER_CASES,
  ...DEATH_CASES,
  ...REBOOT_CASES,
  ...SHOWN_CASES,
  ...STATE_CASES,
]
