"""Models in HDFS, by WebHDFS."""
