"""The engine: receipts, executors, chains of steps on partitions, and the build over all of them."""
