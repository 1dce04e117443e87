/** A device that counts what it is asked for: a proxy of the one that does the work. */
import type { Gpu } from "../device/gpu.ts";
import { queriesFor } from "../kernels/xFrom.ts";
import { type Hooks, replaced } from "./hookedDevice.ts";

/** Calls since the last `reset`, and what lives. */
export class DeviceCounts {
  bindGroups = 0;
  pipelines = 0;
  buffers = 0;
  passes = 0;
  dispatches = 0;
  submits = 0;
  writes = 0;
  writtenBytes = 0;
  /** Bytes that the CPU looked at. */
  mappedBytes = 0;
  /** Buffers made and not destroyed, with their bytes; `reset` leaves them alone. */
  readonly live = new Map<GPUBuffer, number>();
  /** Largest sum of `live` since the last `reset`. */
  peakBytes = 0;
  /** Largest buffer, and largest part of one that a shader got. */
  largestBuffer = 0;
  largestBinding = 0;

  get liveBytes(): number {
    return [...this.live.values()].reduce((a, b) => a + b, 0);
  }

  reset(): void {
    this.bindGroups = this.pipelines = this.buffers = this.passes = this.dispatches = this.submits = 0;
    this.writes = this.writtenBytes = this.mappedBytes = this.largestBuffer = this.largestBinding = 0;
    this.peakBytes = this.liveBytes;
  }
}

/** Dispatches of a layer of Llama's for a row: where queries come by broadcast, rope is one of its own. */
export const layerDispatches = (gpu: Gpu): number => (queriesFor(gpu) === "storage" ? 5 : 6);

/** The same device, counted. `limits` may be lower than its own, as if that were all the device had. */
export function countingDevice(
  gpu: Gpu,
  limits: Readonly<Record<string, number>> = {},
): { gpu: Gpu; counts: DeviceCounts } {
  const counts = new DeviceCounts();
  const { device } = gpu;
  const hooks: Hooks<GPUDevice> = {
    queue: replaced(device.queue, queueHooks(device.queue, counts)),
    createBuffer: (descriptor) => countBuffer(device.createBuffer(descriptor), descriptor, counts),
    createBindGroup: (descriptor) => {
      counts.bindGroups++;
      for (const { resource } of descriptor.entries) countBinding(resource, counts);
      return device.createBindGroup(descriptor);
    },
    createComputePipelineAsync: (descriptor) => {
      counts.pipelines++;
      return device.createComputePipelineAsync(descriptor);
    },
    createCommandEncoder: (descriptor) => {
      const encoder = device.createCommandEncoder(descriptor);
      const beginComputePass: GPUCommandEncoder["beginComputePass"] = (pass) => {
        counts.passes++;
        return countPass(encoder.beginComputePass(pass), counts);
      };
      return replaced(encoder, { beginComputePass });
    },
  };
  return { counts, gpu: { ...gpu, device: replaced(device, hooks), limits: { ...gpu.limits, ...limits } } };
}

function queueHooks(queue: GPUQueue, counts: DeviceCounts): Hooks<GPUQueue> {
  return {
    submit: (commands) => {
      counts.submits++;
      return queue.submit(commands);
    },
    writeBuffer: (buffer, offset, data, dataOffset, size) => {
      counts.writes++;
      const unit =
        "BYTES_PER_ELEMENT" in data && typeof data.BYTES_PER_ELEMENT === "number" ? data.BYTES_PER_ELEMENT : 1;
      counts.writtenBytes += size === undefined ? data.byteLength - (dataOffset ?? 0) * unit : size * unit;
      return queue.writeBuffer(buffer, offset, data, dataOffset, size);
    },
  };
}

/** Buffers go into bind groups and copies, so they are no proxies: their own members are replaced. */
function countBuffer(buffer: GPUBuffer, { size }: GPUBufferDescriptor, counts: DeviceCounts): GPUBuffer {
  counts.buffers++;
  counts.live.set(buffer, size);
  counts.largestBuffer = Math.max(counts.largestBuffer, size);
  counts.peakBytes = Math.max(counts.peakBytes, counts.liveBytes);
  const { destroy, getMappedRange } = buffer;
  const readable = (buffer.usage & GPUBufferUsage.MAP_READ) !== 0;
  Object.assign(buffer, {
    destroy: () => {
      counts.live.delete(buffer);
      destroy.call(buffer);
    },
    getMappedRange: (offset?: number, bytes?: number) => {
      if (readable) counts.mappedBytes += bytes ?? size - (offset ?? 0);
      return getMappedRange.call(buffer, offset, bytes);
    },
  });
  return buffer;
}

function countBinding(resource: GPUBindingResource, counts: DeviceCounts): void {
  if (!("buffer" in resource)) return;
  const { buffer, offset = 0, size = buffer.size - offset } = resource;
  counts.largestBinding = Math.max(counts.largestBinding, size);
}

function countPass(pass: GPUComputePassEncoder, counts: DeviceCounts): GPUComputePassEncoder {
  return replaced(pass, {
    dispatchWorkgroups: (x, y, z) => {
      counts.dispatches++;
      return pass.dispatchWorkgroups(x, y, z);
    },
  });
}
