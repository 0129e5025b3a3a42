"""The steps over one partition that are not filters: read, image stats, render, token lengths."""
