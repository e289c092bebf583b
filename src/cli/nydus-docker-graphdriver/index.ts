/** `nydus-docker-graphdriver`: the storage driver plugin for Docker up to 23. */
import { main } from './main.ts'

void main(process.argv.slice(2))
