/** A thread that checks one image for `checkOnThread`. */
import { parentPort, workerData } from 'node:worker_threads'
import { checkBuild } from '../../kernel/build/index.ts'
import { checkImage, type CheckTask } from './image-check.ts'

const { build, task } = workerData as { readonly build: unknown; readonly task: CheckTask }
checkBuild(build)
void checkImage(task).then((answer) => parentPort?.postMessage(answer))
